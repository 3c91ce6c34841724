"""`langevin runs [FOLDER]`: lists the runs in a folder, and what differs among those of a sweep.

It reads the files of runs, writes nothing, blocks no run, and does not import torch.
"""

import argparse
import json
import math
import os
import pickletools
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from langevin.checkpoint import last_checkpoints
from langevin.config.identity import distinguishing
from langevin.config.migration import migrated
from langevin.config.naming import differing, named, short_names
from langevin.config.stored import DEEPEST, GREATEST, read_yaml
from langevin.config.types import TARGET
from langevin.early_stop import stop_at
from langevin.files import require_regular
from langevin.logged import last_values
from langevin.pickled import beginning_of_pickle
from langevin.tables import GAP, fitting, output_width, print_table
from langevin.visible import ending_with_reader, visible, visible_lines

STATES = ("running", "unfinished", "done", "failed", "imported")
TRACES = ("checkpoints", "metrics.csv", "sessions.json", ".lock")
"""What training leaves in a folder beside config.yaml, by which it is known for a run's when that is damaged."""
IMPORTED = ("model", "classifier", "autoencoder", "schedule", "parameterization")
"""What an imported model is listed with."""
ORIGIN = "origin.json"
"""The file that says whose the weights are that were not trained here."""
MOST_VALUES = 100_000
"""Of a config: a file with more values, with its aliases expanded, is not ours."""


class Value(NamedTuple):
    """A number that was logged, and at which step; None where it was not finite."""

    value: float | None
    step: int


@dataclass
class RunState:
    """What is known of a run.

    Attributes:
        folder: where it lies beside others.
        name: its own folder's name.
        state: "running" while a process trains it, "done" when it stands at max_steps or has stopped early,
            "failed" when it diverged or its files are damaged, "imported" when it is a model of another library,
            else "unfinished": the same command resumes it.
        note: why it failed, which part of it cannot be read, or what was imported.
        license: of the weights that it came with, its own or those of the autoencoder in whose latents it diffuses.
        step: the last that was saved or logged.
        max_steps: of the whole run.
        images_per_second: the last speed.
        metrics: the last value of each column of `metrics.csv`.
        updated: when it last wrote anything, in seconds since 1970.
        differs: of the values that decide what is trained, those in which the runs of this folder are not all alike.
        config: its plain values under today's names; empty where it cannot be read.
    """

    folder: str
    name: str
    state: str = "unfinished"
    note: str = ""
    license: str | None = None
    step: int = 0
    max_steps: int | None = None
    images_per_second: float | None = None
    metrics: dict[str, Value] = field(default_factory=dict)
    updated: float = 0.0
    differs: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict, repr=False)


def find_runs(place: Path) -> dict[Path, list[RunState]]:
    """The runs in a folder and its subfolders, or the one that it is, by the folders that hold them."""
    found: dict[Path, list[tuple[RunState, dict[str, Any]]]] = {}
    locks = held_locks()

    def closed(error: OSError) -> None:
        found.setdefault(Path(error.filename).parent, []).append(unreadable(Path(error.filename), error))

    for directory, subdirectories, files in os.walk(place, onerror=closed):
        subdirectories[:] = sorted(name for name in subdirectories if not name.startswith("."))
        run_dir = Path(directory)
        if "config.yaml" not in files:
            continue
        try:
            read = read_run(run_dir, locks)
        except Exception as error:  # whatever lies there, the other runs are listed
            read = unreadable(run_dir, error)
        if read is not None:
            found.setdefault(run_dir.parent, []).append(read)
            subdirectories.clear()
    for pairs in found.values():
        for (run, _), differs in zip(pairs, differing([config for _, config in pairs]), strict=True):
            run.differs = differs
    return {folder: [run for run, _ in pairs] for folder, pairs in found.items()}


def unreadable(run_dir: Path, error: Exception) -> tuple[RunState, dict[str, Any]]:
    """An unreadable run, and why it cannot be read."""
    reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    return RunState(
        folder=str(run_dir.parent), name=run_dir.name, state="failed", note=f"cannot be read ({reason})"
    ), {}


def read_run(run_dir: Path, locks: frozenset[str]) -> tuple[RunState, dict[str, Any]] | None:
    """A run and the options that distinguish it; None where the folder is not that of a training run."""
    run = RunState(str(run_dir.parent), run_dir.resolve().name, license=license_of(run_dir))
    config, fault = checked_config(run_dir / "config.yaml")
    run.config = config or {}
    if config is None:
        if not any((run_dir / name).exists() for name in TRACES):
            return None
        run.state, run.note = "failed", fault
    elif "trainer" not in config and (run_dir / "checkpoints").is_dir():
        return imported(run, run_dir, config)
    elif not isinstance(config.get("trainer"), dict) or not isinstance(config["trainer"].get("max_steps"), int):
        return None
    else:
        run.max_steps = config["trainer"]["max_steps"]
    damage: list[str] = []
    logged = read_metrics(run_dir / "metrics.csv", damage)
    speed = logged.pop("train/images_per_second", None)
    run.images_per_second = None if speed is None else speed.value
    run.metrics = logged
    ends = last_checkpoints(run_dir / "checkpoints")
    saved = next((step for step in map(read_step, ends) if step is not None), None)
    run.step = max([saved or 0, *(value.step for value in logged.values())])
    run.updated = max(map(modified, (run_dir / "config.yaml", run_dir / "metrics.csv", *ends)))
    if is_held(run_dir / ".lock", locks):
        run.state, run.note = "running", ""
    elif config is not None:
        run.state, run.note = judged(run_dir, saved, run.max_steps or 0, bool(ends), logged.get("train/loss"))
    if damage and not run.note:
        run.note = f"metrics.csv is damaged: {damage[0]}"
    return run, distinguishing(run.config)


def imported(run: RunState, run_dir: Path, config: Mapping[str, Any]) -> tuple[RunState, dict[str, Any]] | None:
    """A model that langevin convert has imported: not trained here, so it differs from no run in an option."""
    classes = {group: config[group].get(TARGET) for group in IMPORTED if isinstance(config.get(group), dict)}
    if not classes:
        return None
    run.state = "imported"
    run.note = " ".join(f"{group}={named(f'{group}.{TARGET}', target)}" for group, target in classes.items())
    run.updated = max(map(modified, (run_dir / "config.yaml", *last_checkpoints(run_dir / "checkpoints"))))
    return run, {}


def license_of(run_dir: Path) -> str | None:
    """The licence of weights that were not trained here, where their origin names one."""
    try:
        found = json.loads(require_regular(run_dir / ORIGIN).read_text())["license"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return ", ".join(text for text in texts if isinstance(text, str)) or None


def judged(run_dir: Path, saved: int | None, max_steps: int, has_saved: bool, loss: Value | None) -> tuple[str, str]:
    """The state of a run that no process trains, and why it failed."""
    if saved is None and has_saved:
        return "failed", "its checkpoints are damaged"
    if saved is not None and (saved >= max_steps or stop_at(run_dir, saved) is not None):
        return "done", ""
    for path in sorted((run_dir / "diverged").glob("step_*.json"), reverse=True)[:1]:
        try:
            found = json.loads(path.read_text())
            if found["action"] == "stop" and found["step"] > (saved or 0):
                return "failed", f"diverged at step {found['step']}: {found['fault']}"
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # half written, or not ours
    if loss is not None and loss.value is None and loss.step > (saved or 0):
        return "failed", f"diverged: the loss is not finite at step {loss.step}"
    return "unfinished", ""


def checked_config(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A config's plain values under today's names, or why it has none."""
    try:
        config = read_yaml(require_regular(path))
    except OSError as error:
        return None, f"{path.name} cannot be read ({error.strerror or type(error).__name__})"
    except (ValueError, TypeError, RecursionError, yaml.YAMLError):  # the loader's of damaged files
        return None, f"{path.name} is damaged"
    if not isinstance(config, dict):
        return None, f"{path.name} is damaged: it holds no options"
    fault = fault_of(config)
    return (migrated(config), "") if fault is None else (None, f"{path.name} is damaged: {fault}")


def fault_of(config: dict[Any, Any]) -> str | None:
    """Why a config is none that a run could have; None where it may be one.

    YAML's aliases can make of a few lines a value that holds itself, or one of any size.
    """
    left, seen = [(config, 1)], 0
    while left:
        node, depth = left.pop()
        seen += 1
        if depth > DEEPEST or seen > MOST_VALUES:
            return "it is nested without end" if depth > DEEPEST else "it holds too many values"
        if isinstance(node, int) and abs(node) >= GREATEST:
            return "it holds too great a number"
        if isinstance(node, dict):
            if not all(isinstance(key, str | int | float | None) for key in node):
                return "a name in it is no text"
            left += [(value, depth + 1) for value in node.values()]
        elif isinstance(node, list | tuple | set):
            left += [(value, depth + 1) for value in node]
    return None


def read_metrics(path: Path, damage: list[str] | None = None) -> dict[str, Value]:
    """The last value of each column of numbers; what cannot be read is added to `damage`."""
    values = last_values(path, [] if damage is None else damage)
    return {name: Value(number if math.isfinite(number) else None, step) for name, (number, step) in values.items()}


def read_step(checkpoint: Path) -> int | None:
    """The step of a checkpoint, from the first few entries of its pickle, which is not executed; None if damaged."""
    try:
        seen = False
        for code, value, _ in pickletools.genops(beginning_of_pickle(require_regular(checkpoint))):
            if seen and isinstance(value, int) and "PUT" not in code.name:
                return value if 0 <= value < GREATEST else None
            seen = seen or value == "global_step"
    except Exception:  # a damaged archive can raise anything
        return None
    return None


def modified(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def held_locks() -> frozenset[str]:
    """The files locked by processes of this machine, as "MAJOR:MINOR:INODE", where the system lists them (Linux)."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(words[5] for words in map(str.split, lines) if len(words) == 8)


def is_held(lock: Path, locks: frozenset[str]) -> bool:
    """Whether a process holds a run's lock: found without taking it, which could block a run that just starts.

    Over NFS the lock of another machine's process is one of the kind that `fcntl` asks about.
    """
    try:
        status = lock.stat()
        if f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}" in locks:
            return True
        if sys.platform != "linux":
            return False
        import fcntl
        import struct

        with lock.open("rb") as file:
            request = struct.pack("hhqqi0q", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
            return struct.unpack("hhqqi0q", fcntl.fcntl(file, fcntl.F_GETLK, request))[0] != fcntl.F_UNLCK
    except OSError:
        return False


def print_runs(folder: Path, runs: Sequence[RunState], now: float) -> None:
    """Print the runs of a folder for people; nothing in them can do anything to a terminal."""
    counts = [(sum(run.state == state for run in runs), state) for state in STATES]
    title = f"{folder}: {len(runs)} runs: " if len(runs) > 1 else f"{folder}: 1 run: "
    print(visible(title + ", ".join(f"{count} {state}" for count, state in counts if count)))
    columns = {
        "run": [run.name for run in runs],
        "state": [run.state for run in runs],
        "step": [steps(run) for run in runs],
        "age": [age(now - run.updated) for run in runs],
        "images/s": ["" if run.images_per_second is None else f"{run.images_per_second:,.0f}" for run in runs],
    }
    names = {name for run in runs for name in run.metrics}
    evaluated = {name for name in names if name.startswith("eval/")}
    # The objective's own terms, which are logged of training too, add little to the loss.
    validated = {name for name in names if name.startswith("val/") and name.replace("val", "train", 1) not in names}
    for name in ["train/loss", "val/loss", *sorted(evaluated), *sorted(validated - {"val/loss"})]:
        found = [run.metrics.get(name) for run in runs]
        if any(found):
            head = name.removeprefix("train/").removeprefix("eval/").replace("/", " ")
            columns[head] = ["" if each is None else shortened(each.value) for each in found]
    short = short_names({path for run in runs for path in run.differs})
    last = [
        " ".join(filter(None, [run.note or described(run, short), run.license and f"license={run.license}"]))
        for run in runs
    ]
    columns = {visible(head): [visible(cell) for cell in cells] for head, cells in columns.items()}
    last = [visible(each) for each in last]
    width = output_width()
    room = min(max(map(len, last)), 30) + GAP  # of the last column, which may be cut
    shown, _ = fitting(columns, [*columns][:3:-1], None if width is None else width - room)
    print_table({**shown, "differs": last} if any(last) else shown, ("run", "state", "differs"), width)


def described(run: RunState, short: Mapping[str, str]) -> str:
    """In which options a run differs from the others of its folder."""
    return " ".join(f"{short[path]}={named(path, value)}" for path, value in run.differs.items())


def steps(run: RunState) -> str:
    """How far a run is; nothing of an imported model."""
    return "" if run.state == "imported" else f"{run.step}/{'?' if run.max_steps is None else run.max_steps}"


def shortened(value: float | None) -> str:
    """A number for people."""
    return "nan" if value is None else f"{value:.4g}"


def age(seconds: float) -> str:
    """A duration in its greatest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0, seconds):.0f}s"


@ending_with_reader()
def main() -> None:
    """Read the command line and list."""
    parser = argparse.ArgumentParser("langevin runs", description="Lists runs and their state.")
    parser.add_argument("folder", nargs="?", default="outputs", type=Path, help="where the runs are (outputs)")
    parser.add_argument("--state", choices=STATES, help="only the runs in this state")
    parser.add_argument("--json", action="store_true", help="a JSON list, with all values and full names")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        message = f"error: {arguments.folder} is no folder; give the one that holds the runs"
        parser.exit(1, visible_lines(message) + "\n")
    found = {
        folder: [run for run in runs if arguments.state in (None, run.state)]
        for folder, runs in find_runs(arguments.folder).items()
    }
    if arguments.json:
        print(json.dumps([plain(run) for runs in found.values() for run in runs], indent=2, default=str))
        return
    chosen = [(folder, runs) for folder, runs in found.items() if runs]
    if not chosen:
        print(visible(f"no such runs in {arguments.folder}"))
    for number, (folder, runs) in enumerate(chosen):
        if number:
            print()
        print_runs(folder, runs, time.time())


def plain(run: RunState) -> dict[str, Any]:
    """A run for programs."""
    metrics = {name: value._asdict() for name, value in run.metrics.items()}
    return {name: value for name, value in vars(run).items() if name != "config"} | {"metrics": metrics}


if __name__ == "__main__":
    main()
