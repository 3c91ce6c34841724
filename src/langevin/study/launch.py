"""Runs what is missing of a study, through Hydra's launchers."""

import logging
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from langevin.cli import SWEEP, command_line, force_add_override, isolated_job, keep_memory
from langevin.commands import evaluate, train
from langevin.config.validate import CONF, groups_of
from langevin.errors import UserError
from langevin.interrupt import STATUS, Interrupted, listen, received, requeue
from langevin.sessions import session
from langevin.study.cells import Cell, Grid, quoted
from langevin.study.results import DamagedError, is_evaluated, state
from langevin.visible import visible, visible_lines


def run(grid: Grid, hydra: Sequence[str]) -> list[str]:
    """Train what is missing or unfinished, then evaluate what is trained.

    Args:
        grid: the study's cells.
        hydra: overrides of Hydra's own settings, such as "hydra/launcher=slurm".

    Returns:
        What could not be done, in words; of runs that failed their reasons.
    """
    os.environ[SWEEP] = f"study={grid.study.name}"
    runs = [(cell, seed) for seed in grid.study.seeds for cell in grid.trained]
    states = {grid.run_dir(*each): state_or_damage(grid, *each) for each in runs}
    jobs = {
        grid.run_dir(cell, seed): [*cell.overrides, f"++name={quoted(grid.run_dir(cell, seed).name)}", f"++seed={seed}"]
        for cell, seed in runs
        for why, is_damaged in [states[grid.run_dir(cell, seed)]]
        if why and not is_damaged  # damaged files are not overwritten
    }
    total = f"{len(runs)} runs in {grid.output_dir}, {len(jobs)} of them to train"
    print(visible(f"{grid.study.folder}: {total}"), flush=True)
    failed = launch("train", jobs, hydra)
    undone = {grid.run_dir(*each): state_or_damage(grid, *each)[0] for each in runs}
    undone = {place: failed.get(place, why) for place, why in undone.items() if why}
    if grid.study.evaluates:
        trained = [(cell, seed) for cell, seed in runs if grid.run_dir(cell, seed) not in undone]
        undone |= evaluate_all(grid, trained, hydra)
    return [f"{place}: {why}" for place, why in undone.items()]


def state_or_damage(grid: Grid, cell: Cell, seed: int) -> tuple[str, bool]:
    """Why a run is not done, empty where it is; and whether that is because it cannot be read."""
    try:
        return state(grid, cell, seed), False
    except DamagedError as error:
        return str(error), True


def evaluate_all(grid: Grid, trained: Sequence[tuple[Cell, int]], hydra: Sequence[str]) -> dict[Path, str]:
    """Make the evaluations that are missing of runs; those that could not be made, and why."""
    missing, damaged = {}, {}
    for cell, seed in trained:
        for evaluation in grid.evaluated:
            place = grid.evaluation_dir(cell, seed, evaluation)
            try:
                if not is_evaluated(grid, cell, seed, evaluation):
                    missing[place] = (cell, seed, evaluation)
            except DamagedError as error:  # is not overwritten
                damaged[place] = str(error)
    jobs = {
        place: [
            *evaluation.overrides,
            f"++checkpoint={quoted(str(grid.run_dir(cell, seed)))}",
            f"++out={quoted(str(place))}",
            f"++output_dir={quoted(str(grid.output_dir))}",
        ]
        for place, (cell, seed, evaluation) in missing.items()
    }
    print(visible(f"{grid.study.folder}: {len(jobs)} evaluations to make"), flush=True)
    failed = launch("evaluate", jobs, hydra)
    undone = {place: failed.get(place, "not evaluated") for place in missing if not is_evaluated(grid, *missing[place])}
    return damaged | undone


def launch(command: str, jobs: Mapping[Path, Sequence[str]], hydra: Sequence[str]) -> dict[Path, str]:
    """Hand jobs to the launcher that Hydra is set to, and wait until all have ended.

    Args:
        command: "train" or "evaluate".
        jobs: the overrides of each, by the folder that it fills.
        hydra: overrides of Hydra's own settings.

    Returns:
        Why those failed that reported a failure.

    Raises:
        UserError: when Hydra has no such settings.
    """
    if not jobs:
        return {}
    with initialize_config_dir(str(CONF), version_base="1.3", job_name=command):
        own = GlobalHydra.instance().hydra
        assert own is not None
        settings = [force_add_override(text, groups_of(command)) for text in hydra]
        overrides = [list(each) for each in jobs.values()]
        try:
            config = own.compose_config(command, [*overrides[0], *settings], RunMode.MULTIRUN)
        except HydraException as error:
            raise UserError(f"{' '.join(hydra)}: {' '.join(str(error).split())}") from error
        HydraConfig.instance().set_config(config)
        context = HydraContext(own.config_loader, Callbacks(config))
        logging.getLogger("hydra").setLevel(logging.WARNING)  # it would print all overrides of each job
        launcher = Plugins.instance().instantiate_launcher(context, partial(work, command), config)
        try:
            returned = launcher.launch(overrides, initial_job_idx=0)
        except Exception as error:  # submitit's, of a job that died without a word
            print(
                visible_lines(f"error: a job has died, other jobs in the queue keep running: {error}"),
                file=sys.stderr,
                flush=True,
            )
            return {}
    return {place: each.return_value for place, each in zip(jobs, returned, strict=True) if each.return_value}


def work(command: str, cfg: DictConfig) -> str | None:
    """One job, wherever the launcher has put it.

    Returns:
        Why it failed, which stops no other job; None where it did not.
    """
    listen()  # a job of submitit begins here, with handlers of its own
    keep_memory()
    try:
        if received() is not None:
            raise Interrupted(f"by {received()}")
        with isolated_job(HydraConfig.get().overrides.task, f"langevin.commands.{command}"):
            (train.run if command == "train" else begin_evaluation)(cfg)
    except Interrupted as stop:
        again = "the job is back in the queue" if requeue() else "rerun the same command to resume"
        print(f"interrupted {stop}; {again}", file=sys.stderr, flush=True)
        sys.exit(STATUS)
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        print(visible_lines(f"error: {error}"), file=sys.stderr, flush=True)
        return " ".join(str(error).split()) or type(error).__name__
    return None


def begin_evaluation(cfg: DictConfig) -> None:
    """Evaluate a run, and note by what."""
    with session(Path(cfg.out), command=command_line("evaluate"), code=train.code_version()):
        evaluate.run(cfg)
