"""The results of a study's runs, and whether they may be in one table."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from langevin.assembly.components import SAMPLING
from langevin.checkpoint import last_checkpoints
from langevin.commands.train import CONFIG
from langevin.config.identity import PATHS, digest
from langevin.config.stored import read_held
from langevin.config.types import plain
from langevin.content import differences, read_content
from langevin.early_stop import last_step
from langevin.errors import UserError
from langevin.evaluation.protocol import DERIVED, differing, of_value
from langevin.evaluation.values import FILE as METRICS
from langevin.evaluation.values import read_measured
from langevin.logged import PROTOCOL, as_number, texts_at
from langevin.runs import held_locks, read_run, read_step
from langevin.sessions import sessions_of
from langevin.study.cells import Cell, Grid, trained_values
from langevin.study.confounds import covered, varied

FOLLOWS = {
    "samples.labels": ("conditions", "labels", "guidance"),
    "samples.precision": ("trainer",),
    DERIVED: SAMPLING,
}
"""What of a protocol follows from which groups of the config."""


class DamagedError(UserError):
    """A run, or its evaluation, that cannot be read: it is missing, and the others are not."""


@dataclass(frozen=True)
class Result:
    """The result of one run, or of one evaluation of it.

    Attributes:
        arms: of all factors.
        seed: of training.
        place: its folder.
        values: of the measures.
        protocols: of those that have one, flat, see `langevin.evaluation.protocol`.
        protocol: its short name; empty where there is none.
        code: the versions of the code that made it.
    """

    arms: Mapping[str, str]
    seed: int
    place: Path
    values: Mapping[str, float]
    protocols: Mapping[str, Mapping[str, Any]]
    protocol: str
    code: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """Those of a study.

    Attributes:
        found: what is there.
        missing: what is not, and why, in words.
        names: of each measure its full name.
    """

    found: Sequence[Result]
    missing: Sequence[str]
    names: Mapping[str, str]


def state(grid: Grid, cell: Cell, seed: int) -> str:
    """Why a run is not done; empty where it is.

    Raises:
        DamagedError: when it cannot be read.
        UserError: when its folder holds another run, or it has been trained for more steps than the study's.
    """
    run_dir, steps = grid.run_dir(cell, seed), cell.cfg.trainer.max_steps
    end = end_of(grid, cell, seed)
    if not (run_dir / CONFIG).is_file():
        return "missing"
    refuse_another(run_dir, cell, seed)
    saved = next((step for step in map(read_step, last_checkpoints(run_dir / "checkpoints")) if step is not None), 0)
    if saved > steps:
        raise UserError(
            f"{run_dir} stands at step {saved}, beyond the study's trainer.max_steps={steps}; set that to {saved}, or "
            "remove the folder"
        )
    if saved == end:
        return ""
    read = read_run(run_dir, held_locks())
    assert read is not None
    run, _ = read
    return f"{run.state} at step {saved} of {steps}" + (f": {run.note}" if run.note else "")


def end_of(grid: Grid, cell: Cell, seed: int) -> int:
    """The step at which a run is done; before the study's last one where it has stopped early."""
    return last_step(grid.run_dir(cell, seed), cell.cfg.trainer, plain(cell.cfg).get("callbacks"))


def refuse_another(run_dir: Path, cell: Cell, seed: int) -> None:
    """Check that a run's folder holds the run of its name.

    Raises:
        DamagedError: when that cannot be read.
        UserError: when it does not.
    """
    try:
        held = read_held(run_dir / CONFIG)
        values = {**trained_values(plain(held)), "seed": held.get("seed")}
    except Exception as error:  # the loader's of damaged files may be anything
        raise DamagedError(f"{run_dir / CONFIG} cannot be read ({type(error).__name__}); remove the folder") from error
    expected = {**cell.decides, "seed": seed}
    if paths := differing([values, expected]):
        lines = "\n".join(
            f"  {path}: {values.get(path, 'absent')} in the run, {expected.get(path, 'absent')} in the study"
            for path in paths
        )
        raise UserError(f"{run_dir} holds a different run from the study's; remove the folder:\n{lines}")
    if {path: OmegaConf.select(held, path) for path in PATHS} != cell.paths:
        refuse_other_data(run_dir, cell)


def refuse_other_data(run_dir: Path, cell: Cell) -> None:
    """Check that the data at the study's path is what a run was trained on, at another path.

    Only then is the data opened: a study is read without it.

    Raises:
        UserError: when it is not.
    """
    if (content := read_content(run_dir)) is None:
        return
    from langevin.assembly.run import make_data  # takes seconds, for it imports Lightning

    data = make_data(cell.cfg)
    data.prepare_data()
    if changed := differences(content, data.content):
        lines = "\n".join(f"  {line}" for line in changed)
        raise UserError(f"{run_dir} was trained on other data than the study's; remove the folder:\n{lines}")


def is_evaluated(grid: Grid, cell: Cell, seed: int, evaluation: Cell) -> bool:
    """Whether a run has been evaluated at its last step.

    Raises:
        DamagedError: when what the evaluation has written cannot be read.
    """
    path = grid.evaluation_dir(cell, seed, evaluation) / METRICS
    try:
        return path.is_file() and read_measured(path).step == end_of(grid, cell, seed)
    except UserError as error:
        raise DamagedError(f"{error}; remove it") from error


def gather(grid: Grid) -> Results:
    """Read all that is there.

    Raises:
        UserError: when nothing is, when a measure is not, or when values were computed in different ways.
    """
    found, missing = [], []
    for cell in grid.trained:
        for seed in grid.study.seeds:
            name = grid.run_dir(cell, seed).name
            try:
                if why := state(grid, cell, seed):
                    missing.append(f"{name}: {why}")
                    continue
                if not grid.study.evaluates:
                    found.append(of_training(grid, cell, seed))
            except DamagedError as error:
                missing.append(f"{name}: {error}")
                continue
            for evaluation in grid.evaluated if grid.study.evaluates else ():
                place = grid.evaluation_dir(cell, seed, evaluation)
                try:
                    if is_evaluated(grid, cell, seed, evaluation):
                        found.append(of_evaluation(grid, cell, seed, evaluation))
                    else:
                        missing.append(f"{name}, {place.name}: not evaluated")
                except DamagedError as error:
                    missing.append(f"{name}, {place.name}: {error}")
    if not found:
        lines = "\n".join(f"  {line}" for line in missing)
        raise UserError(f"{grid.output_dir}: nothing of the study is done yet; run it first:\n{lines}")
    refuse_mixed_data(grid)
    names = {measure: resolved(measure, found) for measure in grid.study.measures}
    refuse_mixed(found, list(names.values()), grid)
    return Results(found, missing, names)


def of_training(grid: Grid, cell: Cell, seed: int) -> Result:
    """What a run measured at its last step.

    Raises:
        DamagedError: when the protocol of that is lost.
    """
    run_dir, step = grid.run_dir(cell, seed), end_of(grid, cell, seed)
    row = texts_at(run_dir / "metrics.csv", step)
    name = row.pop(PROTOCOL, "")
    values = {key: number for key, text in row.items() if (number := as_number(text)) is not None}
    protocols = {}
    if name:
        path = run_dir / "evaluations" / f"protocol-{name}.json"
        try:
            record = json.loads(path.read_text())
            of_samples = [key for key in values if key.startswith("eval/")]
            protocols = {key: of_value(record, key.removeprefix("eval/")) for key in of_samples}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{path}, by which the values of that run were computed, cannot be read") from error
    return Result(cell.arms, seed, run_dir, values, protocols, name, versions_of(run_dir))


def of_evaluation(grid: Grid, cell: Cell, seed: int, evaluation: Cell) -> Result:
    """What an evaluation measured."""
    place = grid.evaluation_dir(cell, seed, evaluation)
    measured = read_measured(place / METRICS)
    code = tuple(dict.fromkeys([*versions_of(grid.run_dir(cell, seed)), *versions_of(place)]))
    arms, protocol = {**cell.arms, **evaluation.arms}, digest(measured.protocols)
    return Result(arms, seed, place, measured.values, measured.protocols, protocol, code)


def resolved(measure: str, found: Sequence[Result]) -> str:
    """The full name of a measure, which must be the same in all results.

    Raises:
        UserError: when it is not.
    """
    seen: dict[str, Result] = {}
    for result in found:
        names = [name for name in result.values if name == measure] or [
            name for name in result.values if fnmatchcase(name, measure)
        ]
        if len(names) != 1:
            fits = f"fits {', '.join(names)}" if names else "is not measured"
            allowed = f"allowed: one of {', '.join(sorted(result.values)) or 'nothing'}, or another run in its place"
            raise UserError(f"measures.{measure}: {fits} in {result.place}; {allowed}")
        seen.setdefault(names[0], result)
    if len(seen) > 1:
        lines = "\n".join(f"  {name} in {result.place}" for name, result in seen.items())
        raise UserError(f"measures.{measure}: fits different values, which cannot be columns of one table:\n{lines}")
    return next(iter(seen))


def refuse_mixed_data(grid: Grid) -> None:
    """Check that runs whose configs name the same data were trained on the same: it may have changed in between.

    Raises:
        UserError: when they were not.
    """
    first: dict[str, Path] = {}
    for cell in grid.trained:
        for run_dir in (grid.run_dir(cell, seed) for seed in grid.study.seeds):
            if (content := read_content(run_dir)) is None:
                continue
            other = first.setdefault(digest(plain(cell.cfg.data)), run_dir)
            if changed := differences(read_content(other) or content, content, "in the first", "in the second"):
                lines = "\n".join(f"  {line}" for line in changed)
                raise UserError(
                    f"{other} and {run_dir} were trained on other data, though the study names the same for both; "
                    f"remove one, and rerun the study:\n{lines}"
                )


def refuse_mixed(found: Sequence[Result], names: Sequence[str], grid: Grid) -> None:
    """Check that the values were computed in the same way, but for what the study varies.

    Raises:
        UserError: when they were not.
    """
    varied_fields = {field for fields in varied(grid).values() for field in fields}
    lines = []
    for name in names:
        protocols = [dict(result.protocols.get(name, {})) for result in found]
        for path in differing(protocols):
            if not may_differ(path, varied_fields):
                seen: dict[str, str] = {}
                for protocol, result in zip(protocols, found, strict=True):
                    seen.setdefault(json.dumps(protocol.get(path)), str(result.place))
                lines.append(f"  {name}: {path}: " + " and ".join(f"{each} in {place}" for each, place in seen.items()))
    if lines:
        raise UserError(
            f"{grid.study.folder}: these values were computed in different ways and cannot be columns of one table; "
            "remove those of another protocol, and rerun the study:\n" + "\n".join(lines)
        )


def may_differ(path: str, fields: Collection[str]) -> bool:
    """Whether a path of a protocol may differ where these fields of the configs do."""
    if path in FOLLOWS:
        return any(field.partition(".")[0] in FOLLOWS[path] for field in fields)
    return path.startswith("samples.") and covered(path.removeprefix("samples."), fields)


def versions_of(place: Path) -> tuple[str, ...]:
    """The versions of the code that have worked in a folder, the first first; none where that was not noted."""
    return tuple(dict.fromkeys(str(each["code"]) for each in sessions_of(place) if "code" in each))
