"""Searches for the best options: each trial is an ordinary run, and Optuna proposes the next from all before it.

What the search knows lies in the folders of its runs. A proposal is a function of the search's seed, the trial's number
and the trials before it, so that a search that is killed and rerun continues as if it had not been.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import optuna
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from langevin.assembly.check import mistakes_in
from langevin.assembly.logged_values import RETURNED
from langevin.checkpoint import last_checkpoints
from langevin.config.identity import digest
from langevin.config.types import plain
from langevin.config.validate import Mistake
from langevin.early_stop import last_step
from langevin.errors import UserError
from langevin.files import write_atomically, write_json
from langevin.logged import last_values, matching
from langevin.runs import read_step
from langevin.study.cells import composed, quoted, trained_values
from langevin.study.plan import FILE, StudyError
from langevin.study.space import Choice, Range, Search
from langevin.visible import visible

TRIAL = "trial.json"
"""What a trial has been given, in its run's folder."""
TABLES = ("search.csv", "search.md")
Runner = Callable[[Path, list[str]], str | None]
"""Trains into a folder, by some overrides; returns why that failed, if it did."""


@dataclass(frozen=True)
class Trial:
    """A run of a search.

    Attributes:
        number: from 0.
        params: the options that it was given.
        run_dir: its folder.
        value: what came of it; None where it has failed.
        note: why.
    """

    number: int
    params: Mapping[str, Choice]
    run_dir: Path
    value: float | None
    note: str = ""


def search(plan: Search, runner: Runner) -> list[Trial]:
    """Make all trials, or those that are missing.

    Args:
        plan: the search, without mistakes.
        runner: trains.

    Raises:
        UserError: when a run is not done after the runner has returned, or a trial's file is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    output_dir, name = place_of(plan)
    trials: list[Trial] = []
    for number in range(plan.trials):
        run_dir = output_dir / f"trial{number:03d}-{name}"
        record = read_trial(run_dir) or {"params": proposal(plan, trials)}
        write_json(run_dir / TRIAL, record)
        overrides, cfg = trial_config(plan, record["params"])
        if "failed" not in record and not is_done(run_dir, cfg):
            given = ", ".join(f"{option}={text(value)}" for option, value in record["params"].items())
            print(visible(f"trial {number} of {plan.trials}: {given}"), flush=True)
            own = (f"++output_dir={quoted(str(output_dir))}", f"++name={quoted(run_dir.name)}", "++resume=true")
            if why := runner(run_dir, [*overrides, *own]):
                record["failed"] = why
                write_json(run_dir / TRIAL, record)
            elif not is_done(run_dir, cfg):
                raise UserError(f"{run_dir} is not done; rerun the same command to resume")
        trials.append(judged(plan, number, record, run_dir))
        last = trials[-1]
        result = last.note if last.value is None else f"{plan.value} {last.value:.6g}"
        print(visible(f"trial {number}: {result}"), flush=True)
    return trials


def judged(plan: Search, number: int, record: Mapping[str, Any], run_dir: Path) -> Trial:
    """A trial whose run has ended."""
    params = record["params"]
    if "failed" in record:
        return Trial(number, params, run_dir, None, f"failed: {record['failed']}")
    values = last_values(run_dir / "metrics.csv", [])
    found = matching(plan.value, values)
    if len(found) != 1:
        what = f"fits {', '.join(found)}" if found else "was not logged"
        return Trial(number, params, run_dir, None, f"failed: {plan.value} {what}")
    value = values[found[0]][0]
    if not math.isfinite(value):
        return Trial(number, params, run_dir, None, f"failed: {plan.value} is {value}")
    return Trial(number, params, run_dir, value)


def proposal(plan: Search, trials: Sequence[Trial]) -> dict[str, Choice]:
    """The options of the next trial: a function of the search and the trials before."""
    seed = int(np.random.SeedSequence([plan.seed, len(trials)]).generate_state(1)[0])
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed), direction="maximize" if plan.maximize else "minimize"
    )
    distributions = {option: distribution(domain) for option, domain in plan.space.items()}
    study.add_trials([frozen(trial, distributions) for trial in trials])
    return dict(study.ask(distributions).params)


def distribution(domain: Range | tuple[Choice, ...]) -> BaseDistribution:
    """An option's values as Optuna takes them."""
    if isinstance(domain, tuple):
        return CategoricalDistribution(domain)
    if domain.is_whole:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=domain.step)
    return FloatDistribution(float(domain.low), float(domain.high), log=domain.log)


def frozen(trial: Trial, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A trial as Optuna takes it."""
    params = dict(trial.params)
    if trial.value is None:
        return create_trial(state=TrialState.FAIL, params=params, distributions=dict(distributions))
    return create_trial(value=trial.value, params=params, distributions=dict(distributions))


def place_of(plan: Search) -> tuple[Path, str]:
    """The folder of the runs; and a name of all that decides the proposals, which another search does not have."""
    cfg = next(configs(plan, [{}]))[1]
    space = {
        option: vars(domain) if isinstance(domain, Range) else list(domain) for option, domain in plan.space.items()
    }
    decides = {"space": space, "value": plan.value, "maximize": plan.maximize, "seed": plan.seed}
    return Path(cfg.output_dir), digest({**decides, "config": dict(trained_values(plain(cfg)))})


def trial_config(plan: Search, params: Mapping[str, Choice]) -> tuple[tuple[str, ...], DictConfig]:
    """The overrides and the config of a trial."""
    return next(configs(plan, [params]))


def configs(plan: Search, trials: Sequence[Mapping[str, Choice]]) -> Iterator[tuple[tuple[str, ...], DictConfig]]:
    """The overrides and the config of each of some trials.

    Raises:
        UserError: with what Hydra reports.
    """
    base = (f"output_dir={quoted(f'outputs/{plan.name}')}", *plan.overrides, f"seed={plan.seed}")
    arms = {
        f"{index}": tuple(f"{option}={text(value)}" for option, value in params.items())
        for index, params in enumerate(trials)
    }
    mistakes: list[Mistake] = []
    for cell in composed("train", (*base, f"{RETURNED}={quoted(plan.value)}"), {"trial": arms}, None, dict, mistakes):
        yield cell.overrides, cell.cfg
    if mistakes:
        raise StudyError(plan.folder / FILE, mistakes)


def text(value: Choice) -> str:
    """A value in Hydra's grammar; a text is taken as it stands there, so that it may be a list."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def mistakes_of(plan: Search) -> list[Mistake]:
    """The mistakes in the configs of the trials: of each choice, and of the ends of each range."""
    from langevin.assembly.run import dry_build  # takes seconds, for it imports Lightning

    ends = {
        option: (domain.low, domain.high) if isinstance(domain, Range) else domain
        for option, domain in plan.space.items()
    }
    first = {option: values[0] for option, values in ends.items()}
    tried = [first, *({**first, option: value} for option, values in ends.items() for value in values[1:])]
    found: dict[Mistake, None] = {}
    for _, cfg in configs(plan, tried):
        found |= dict.fromkeys(mistakes_in(cfg) or dry_build(cfg))
    return list(found)


def is_done(run_dir: Path, cfg: DictConfig) -> bool:
    """Whether a run stands at its last step."""
    saved = next((step for step in map(read_step, last_checkpoints(run_dir / "checkpoints")) if step is not None), None)
    return saved is not None and saved >= last_step(run_dir, cfg.trainer, plain(cfg).get("callbacks"))


def read_trial(run_dir: Path) -> dict[str, Any] | None:
    """What a trial has been given; None where there is no such trial yet.

    Raises:
        UserError: when that cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads((run_dir / TRIAL).read_text())
        dict(found["params"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run_dir / TRIAL} is damaged ({type(error).__name__}); remove that folder") from error
    return found


def best_first(plan: Search, trials: Sequence[Trial]) -> list[Trial]:
    """The trials by their values, those that failed last."""

    def rank(trial: Trial) -> tuple[bool, float]:
        return trial.value is None, 0.0 if trial.value is None else -trial.value if plan.maximize else trial.value

    return sorted(trials, key=rank)


def write_tables(plan: Search, trials: Sequence[Trial], place: Path) -> None:
    """Write `search.csv` and `search.md`: a row a trial, the best first.

    Args:
        plan: the search.
        trials: all of them.
        place: the folder.
    """
    rows = [
        [
            str(trial.number),
            trial.note if trial.value is None else repr(trial.value),
            *(text(trial.params[option]) for option in plan.space),
            trial.run_dir.name,
        ]
        for trial in best_first(plan, trials)
    ]
    head = ["trial", plan.value, *plan.space, "run"]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([head, *rows])
    lines = [head, ["---"] * len(head), *rows]
    cells = [[visible(cell).replace("|", "\\|") for cell in line] for line in lines]
    marks = "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"
    place.mkdir(parents=True, exist_ok=True)
    for name, content in zip(TABLES, (table.getvalue(), marks), strict=True):
        write_atomically(place / name, partial(_write, content.encode()))


def _write(data: bytes, file: BinaryIO) -> None:
    file.write(data)
