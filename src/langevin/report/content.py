"""The contents of a report on runs, as plain values: read from their folders, without torch."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from langevin import __version__
from langevin.config.identity import deciding, distinguishing, flatten
from langevin.config.naming import differing, named, short_names
from langevin.config.types import TARGET
from langevin.errors import UserError
from langevin.logged import Series, read_logged
from langevin.report.curves import SPEED, Curve, is_evaluated, seconds_of, thinned
from langevin.report.values import evaluations, finite, grouped, points_of
from langevin.runs import RunState, find_runs
from langevin.sessions import sessions_of

POINTS = 1000
"""About how many points of a curve are drawn, and of all runs together, of one column, eight times as many."""
FEWEST_POINTS = 200
TIME = "%Y-%m-%d %H:%M"
LAST = ("train/grad_norm", "train/learning_rate", SPEED)
"""The columns that are no losses."""
LONGEST = 1e12
"""Seconds of a duration that is shown."""


def chosen(places: Sequence[Path]) -> list[tuple[Path, RunState]]:
    """The runs at some places: runs, or folders that hold runs.

    Raises:
        UserError: when there is none at one of them, or a run is named twice.
    """
    found: dict[Path, RunState] = {}
    for place in places:
        if not place.is_dir():
            raise UserError(f"{place} is not a folder; give runs, or folders that hold runs")
        here = [run for runs in find_runs(place.resolve()).values() for run in runs]
        if not here:
            raise UserError(f"{place} is not a run and holds none: there is no config.yaml of langevin train in it")
        for run in here:
            run_dir = Path(run.folder) / run.name
            if run_dir in found:
                raise UserError(f"{place}: the run {run_dir} is named twice; name each once")
            found[run_dir] = run
    return list(found.items())


def content_of(runs: Sequence[tuple[Path, RunState]], vary: Sequence[str], now: datetime) -> dict[str, Any]:
    """All that the page shows, but the images.

    Args:
        runs: their folders, and what `langevin.runs` reads of them.
        vary: see `langevin.report.values.grouped`.
        now: the time shown on the page.
    """
    configs = [run.config for _, run in runs]
    differs = list(differing([distinguishing(config) for config in configs]))
    short = short_names({path for each in differs for path in each})
    names = labels([run_dir for run_dir, _ in runs])
    most = max(FEWEST_POINTS, min(POINTS, 8 * POINTS // len(runs)))
    entries: list[dict[str, Any]] = []
    columns, points, faults = [], [], []  # each run's; only thinned curves are kept
    for (run_dir, run), config, own, name in zip(runs, configs, differs, names, strict=True):
        logged = read_logged(run_dir / "metrics.csv")
        if logged.damage:
            faults.append(f"{run_dir / 'metrics.csv'}: not all of it can be read ({logged.damage})")
        measured, unread = points_of(run_dir, logged)
        columns.append({each: thinned(found, most) for each, found in logged.columns.items() if not is_evaluated(each)})
        points.append(measured)
        faults += unread
        batch_size = config.get("batch_size")
        speed = logged.columns.get(SPEED, Series())
        seconds = seconds_of(speed, batch_size) if isinstance(batch_size, int) else None
        entries.append(
            {
                "name": name,
                "label": name,
                "folder": str(run_dir),
                "state": run.state,
                "note": run.note,
                "step": run.step,
                "max_steps": run.max_steps,
                "batch_size": batch_size if isinstance(batch_size, int) else None,
                "speed": run.images_per_second,
                "time": duration(seconds),
                "sessions": sessions_summary(run_dir),
                "updated": date(run.updated) if run.updated else None,
                "differs": {
                    short[path]: {"text": named(path, value), "number": number(value)} for path, value in own.items()
                },
            }
        )
    distinguish(entries)
    groups, reasons = grouped(points, vary)
    return {
        "title": title([run_dir for run_dir, _ in runs]),
        "made": now.strftime(TIME),
        "version": __version__,
        "runs": entries,
        "varied": [short[path] for path in dict.fromkeys(path for each in differs for path in each)],
        "points": most,
        "curves": curves(columns, [task(config) for config in configs]),
        "groups": groups,
        "evaluations": evaluations(points),
        "reasons": reasons,
        "config": config_table(configs),
        "faults": faults,
    }


def curves(columns: Sequence[Mapping[str, Curve]], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Each column's curves, a run each or None; losses first, equal columns once.

    The losses of runs of several tasks, such as a classifier's cross-entropy and a denoiser's squared error, have
    nothing but their names in common, and so have an entry for each task.

    Args:
        columns: each run's, by their names.
        tasks: each run's; empty where it is not known.
    """
    # A run whose config cannot be read is with the first: nothing is known against it.
    known = next(filter(None, tasks), "")
    tasks = [task or known for task in tasks]
    names = {name for column in columns for name in column}
    first = ["train/loss", "val/loss"]
    order = [name for name in first if name in names] + sorted(names.difference(first), key=significance)
    entries: list[dict[str, Any]] = []
    for name in order:
        holders = dict.fromkeys(task for task, column in zip(tasks, columns, strict=True) if name in column)
        for kind in holders if len(holders) > 1 and name not in LAST else [None]:
            drawn = [
                vars(column[name]) if name in column and kind in (None, task) else None
                for task, column in zip(tasks, columns, strict=True)
            ]
            twin = next((one for one in entries if one["runs"] == drawn), None)
            if twin is None:
                entries.append({"name": name, "task": kind or "", "same": [], "runs": drawn})
            else:  # such as the only term of the loss
                twin["same"].append(name)
    return entries


def task(config: Mapping[str, Any]) -> str:
    """What a run trains, as one types it."""
    node = config.get("task")
    path = f"task.{TARGET}"
    return named(path, node.get(TARGET)) if isinstance(node, Mapping) else ""


def significance(column: str) -> tuple[int, str]:
    """Where a column stands among others: columns about speed and gradients come last."""
    return (LAST.index(column) + 1 if column in LAST else 0, column)


def config_table(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All paths of some configs, whether they decide what is trained, and each run's value as text or None."""
    flat = [dict(flatten(config)) for config in configs]
    decisive = {path for config in configs for path in deciding(config)}
    return [
        {
            "path": path,
            "decides": path in decisive,
            "values": [text(each[path]) if path in each else None for each in flat],
        }
        for path in dict.fromkeys(path for each in flat for path in each)
    ]


def text(value: Any) -> str:
    """A config's value as it is written."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def number(value: Any) -> float | None:
    """A value that has a place on an axis; None for others."""
    return None if isinstance(value, bool) else finite(value)


def duration(seconds: Any) -> str | None:
    """A time in hours, minutes and seconds; None where it is none."""
    known = finite(seconds)
    return None if known is None or abs(known) >= LONGEST else str(timedelta(seconds=round(known)))


def date(seconds: float) -> str | None:
    """A time since 1970, as people write it; None where it is outside the calendar."""
    try:
        return datetime.fromtimestamp(seconds).strftime(TIME)
    except (OverflowError, OSError, ValueError):
        return None


def sessions_summary(run_dir: Path) -> dict[str, Any]:
    """What has worked on a run: its last command, every machine and version of the code, the time of all sessions."""
    sessions = sessions_of(run_dir)
    known = [seconds for each in sessions if (seconds := finite(each.get("seconds"))) is not None]
    return {
        "command": str(sessions[-1].get("command", "")) if sessions else "",
        "hardware": list(dict.fromkeys(str(each["hardware"]) for each in sessions if "hardware" in each)),
        "code": list(dict.fromkeys(str(each["code"]) for each in sessions if "code" in each)),
        "wall_time": duration(sum(known)) if known else None,
        "killed": len(sessions) - len(known),
    }


def labels(folders: Sequence[Path]) -> list[str]:
    """The ends of paths, as long as it takes to distinguish them."""

    def end(folder: Path, length: int) -> str:
        return "/".join(folder.parts[-length:])

    found: dict[Path, str] = {}
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        counts = Counter(end(folder, length) for folder in folders)
        for folder in folders:
            if counts[end(folder, length)] == 1:
                found.setdefault(folder, end(folder, length))
        if len(found) == len(folders):
            break
    return [found[folder] for folder in folders]


def distinguish(runs: Sequence[dict[str, Any]]) -> None:
    """Call runs by what differs, where that is short and distinguishes them."""
    texts = [" ".join(f"{name}={value['text']}" for name, value in run["differs"].items()) for run in runs]
    if len(set(texts)) == len(texts) > 1 and all(0 < len(each) <= 40 for each in texts):
        for run, each in zip(runs, texts, strict=True):
            run["label"] = each


def title(folders: Sequence[Path]) -> str:
    """What the page is about."""
    if len(folders) == 1:
        return folders[0].name
    parents = {folder.parent for folder in folders}
    return f"{len(folders)} runs" + (f" of {parents.pop().name}" if len(parents) == 1 else "")
