"""Evaluated values, in training and by evaluate.py: put together where they were computed in the same way."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langevin.config.identity import digest
from langevin.config.naming import short_names, telling, typed_name
from langevin.config.stored import GREATEST
from langevin.errors import UserError
from langevin.evaluation.protocol import DERIVED, may_vary, of_value, stated, telling_settings
from langevin.evaluation.values import FILE, read_measured
from langevin.logged import Logged
from langevin.report.curves import EVALUATED, is_evaluated
from langevin.tables import natural

NOT_RECORDED = "protocol not recorded"
TRAINING = "in training"


class Point(NamedTuple):
    """A value.

    Attributes:
        name: with its number of samples, such as "fid@5000".
        step: of the model; None where it is not known.
        value: None where it is not finite.
        protocol: flat; None where it is not recorded.
        key: distinguishes values whose protocol is not recorded, as far as they are known to differ.
        source: who computed it.
    """

    name: str
    step: int | None
    value: float | None
    protocol: dict[str, Any] | None
    key: str
    source: str


def points_of(run_dir: Path, logged: Logged) -> tuple[list[Point], list[str]]:
    """The values of a run, those of its training and those of evaluate.py; and what could not be read."""
    points, faults = [], []
    directory = run_dir / "evaluations"
    protocols = {name: read_protocol(directory / f"protocol-{name}.json") for name in set(logged.protocols.values())}
    for column in filter(is_evaluated, logged.columns):
        for step, value in logged.columns[column]:
            name = logged.protocols.get(step, "")
            value_name = column.removeprefix(EVALUATED)
            flat = concerning(protocols.get(name), value_name)
            points.append(Point(value_name, step, finite(value), flat, name or str(run_dir), TRAINING))
    for path in sorted(run_dir.rglob(FILE)):
        try:
            measured = read_measured(path)
        except UserError as error:
            faults.append(str(error))
            continue
        source = str(path.relative_to(run_dir))
        model_step = measured.step if isinstance(measured.step, int) and abs(measured.step) < GREATEST else None
        for value_name, value in measured.values.items():
            flat = measured.protocols[value_name]
            points.append(Point(value_name, model_step, finite(value), flat, "", source))
    return points, faults


def read_protocol(path: Path) -> dict[str, Any] | None:
    """A protocol of values in training; None where it cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def concerning(protocol: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    """The part of a protocol that concerns a value; None where there is none."""
    try:
        return None if protocol is None else of_value(protocol, name)
    except (KeyError, TypeError, AttributeError, RecursionError):
        return None


def finite(value: Any) -> float | None:
    """A number that can be drawn; None for others."""
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def grouped(
    points: Sequence[Sequence[Point]], vary: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The values of several runs, grouped by what may share a column.

    Args:
        points: each run's.
        vary: the parts of protocols in which values may differ and yet be compared, as in `evaluate.py compare=`.

    Returns:
        The groups, each with its name, the paths at which its protocols may and do differ, and its series: a run, the
        settings that distinguish it from others of this run, and (step, value, source) by the step. And for each name
        that has several groups: why.
    """
    groups: dict[str, dict[str, list[tuple[int, Point]]]] = {}
    for run, found in enumerate(points):
        for point in found:
            key = f"not recorded {point.key}" if point.protocol is None else digest(compared(point.protocol, vary))
            groups.setdefault(point.name, {}).setdefault(key, []).append((run, point))
    listed, reasons = [], []
    for name, parts in groups.items():
        first_protocols = [part[0][1].protocol for part in parts.values()]
        known = [compared(flat, vary) for flat in first_protocols if flat is not None]
        paths = telling(known)
        if len(parts) > 1:
            reasons.append({"name": name, "ways": len(parts), "why": why(known, paths, len(known) < len(parts))})
        ways = [settings(flat, paths) if flat is not None else NOT_RECORDED for flat in first_protocols]
        for protocol, part in zip(numbered(ways), parts.values(), strict=True):
            varied = telling([point.protocol or {} for _, point in part])
            listed.append({"name": name, "protocol": protocol, "varied": varied, "series": series_of(part, vary)})
    return listed, reasons


def compared(flat: Mapping[str, Any], vary: Sequence[str]) -> dict[str, Any]:
    """The part of a protocol that has to be equal."""
    return {path: value for path, value in flat.items() if not may_vary(path, vary)}


def settings(protocol: Mapping[str, Any], paths: Sequence[str]) -> str:
    """A protocol's values at some paths, in short; the number of evaluations only where nothing else differs."""
    paths = [path for path in paths if path != DERIVED] or paths
    names = {path: typed_name(path) for path in paths}
    short = short_names(set(names.values()))
    return " ".join(f"{short[names[path]]}={shorten(stated(protocol, path) or 'absent', 30)}" for path in paths)


def numbered(titles: Sequence[str]) -> list[str]:
    """Titles, the second and later of equal ones with a number."""
    seen: dict[str, int] = {}
    found = []
    for title in titles:
        seen[title] = seen.get(title, 0) + 1
        found.append(title if seen[title] == 1 else f"{title}, {seen[title]}".removeprefix(", "))
    return found


def in_full(protocol: Mapping[str, Any], path: str) -> str:
    """A protocol's value at a path, as it is written."""
    return json.dumps(protocol[path]) if path in protocol else "absent"


def why(protocols: Sequence[dict[str, Any]], paths: Sequence[str], is_part_unknown: bool) -> list[str]:
    """Why values of one name are shown separately."""
    lines = []
    for path in paths:
        seen = dict.fromkeys(shorten(in_full(protocol, path), 60) for protocol in protocols)
        lines.append(f"{path}: {' or '.join(seen)}")
    return lines + (["how some of them were computed is not recorded"] if is_part_unknown else [])


def shorten(text: str, length: int) -> str:
    """A text, cut where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def series_of(part: Sequence[tuple[int, Point]], vary: Sequence[str]) -> list[dict[str, Any]]:
    """Of one group the values by runs and, where a run has several, by what varies among them."""
    runs: dict[int, list[Point]] = {}
    for run, point in part:
        runs.setdefault(run, []).append(point)
    found = []
    for run, points in runs.items():
        flats = [point.protocol or {} for point in points]
        paths = [path for path in telling(flats) if may_vary(path, vary)]
        several: dict[str, dict[str, Any]] = {}
        for point, flat in zip(points, flats, strict=True):
            how = settings(flat, paths)
            one = several.setdefault(how, {"run": run, "settings": how, "points": []})
            one["points"].append((point.step, point.value, point.source))
        for one in several.values():
            one["points"].sort(key=lambda point: -1 if point[0] is None else point[0])
            found.append(one)
    return found


def evaluations(points: Sequence[Sequence[Point]]) -> dict[str, Any]:
    """All evaluations of several runs as a table; of those in training only each run's last.

    Args:
        points: each run's.

    Returns:
        The "heads" of what tells them apart, the "names" of the values, and the "rows": each evaluation's "run",
        "step" or None, "source", "settings" by the heads, and "values" by their names.
    """
    rows: list[dict[str, Any]] = []
    protocols: list[dict[str, Any]] = []
    for run, found in enumerate(points):
        last = max((point.step for point in found if point.source == TRAINING and point.step is not None), default=None)
        own: dict[str, list[Point]] = {}
        for point in found:
            if point.source != TRAINING or point.step == last:
                own.setdefault(point.source, []).append(point)
        for source, measured in own.items():
            rows.append(
                {
                    "run": run,
                    "step": measured[0].step,
                    "source": source.removesuffix(f"/{FILE}").removeprefix("evaluations/"),
                    "values": {point.name: point.value for point in measured},
                }
            )
            protocols.append(measured[0].protocol or {})  # others differ in the settings of metrics alone
    columns = telling_settings([protocol for protocol in protocols if protocol])
    cells = iter(zip(*columns.values(), strict=True) if columns else [()] * len(rows))
    for row, protocol in zip(rows, protocols, strict=True):
        row["settings"] = list(next(cells)) if protocol else [NOT_RECORDED] * len(columns)
    rows.sort(key=lambda row: (row["run"], row["source"] != TRAINING, natural(row["settings"])))
    names = dict.fromkeys(name for row in rows for name in row["values"])
    return {"heads": list(columns), "names": list(names), "rows": rows}
