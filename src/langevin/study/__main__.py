"""`python -m langevin.study FOLDER [run|table|search] [--out FOLDER] [-- OVERRIDES]`: a study's grid, table, search."""

import argparse
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

from langevin.cli import LAUNCHER, calm_threads, fail
from langevin.errors import UserError, missing_package
from langevin.interrupt import listen
from langevin.visible import visible

DESCRIPTION = """Runs the grid of FOLDER/study.yaml, what is missing or unfinished of it, and makes its table from what
is there. The grid is run here, one run after another, or by another of Hydra's launchers: -- hydra/launcher=slurm
With `search`, makes the trials of its section search, what is missing of them, and a table of them, the best first."""


def main() -> None:
    """Read the command line; run, and make the table."""
    given = sys.argv[1:]
    own, overrides = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser("python -m langevin.study", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the study, such as experiments/schedules")
    parser.add_argument(
        "task",
        nargs="?",
        choices=("run", "table", "search"),
        help="one of the three; run and table where left out",
    )
    parser.add_argument("--out", type=Path, help="where the table goes, if not into FOLDER")
    parser.epilog = "What follows -- are overrides of train.py for all runs, or Hydra's own (hydra/launcher=slurm)."
    arguments = parser.parse_args(own)
    if not any(text.startswith(f"{LAUNCHER}=") for text in overrides):  # who launches is not interrupted
        listen()
    calm_threads()
    warnings.filterwarnings("ignore", ".*`srun` command is available")  # Lightning's advice
    try:
        if arguments.task == "search":
            find_best(arguments.folder, arguments.out, overrides)
        else:
            work(arguments.folder, arguments.task, arguments.out, overrides)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted; rerun the same command to resume")


def work(folder: Path, task: str | None, out: Path | None, overrides: list[str]) -> None:
    """Do what the command line asks for.

    Raises:
        UserError: when there is a mistake in the study, before anything is run; or when something could not be run.
    """
    # Not at the top: these import torch, which is to be imported after `calm_threads`.
    from langevin.study.cells import lay_out, mistakes_of
    from langevin.study.confounds import confounds, overacknowledged, unacknowledged
    from langevin.study.launch import run
    from langevin.study.plan import FILE, StudyError, read_study

    if task != "run" and find_spec("matplotlib") is None:
        raise missing_package("the table's figure", "matplotlib", "experiments")
    hydra = [text for text in overrides if text.startswith("hydra")]
    study = read_study(folder, [text for text in overrides if text not in hydra])
    grid = lay_out(study)
    found = confounds(grid)
    mistakes = [*overacknowledged(study, found), *(mistakes_of(grid) if task != "table" else ())]
    if mistakes:
        raise StudyError(study.folder / FILE, mistakes)
    for factor, texts in unacknowledged(study, found).items():
        print(visible(f"confounded: {factor}: {', '.join(texts)}"), flush=True)
    failed = run(grid, hydra) if task != "table" else []
    for line in failed:
        print(visible(f"not done: {line}"), file=sys.stderr, flush=True)
    if task != "run":
        from langevin.study.figure import FILE as FIGURE
        from langevin.study.figure import draw
        from langevin.study.results import gather
        from langevin.study.table import FILES, write_table

        results, place = gather(grid), out or study.folder
        write_table(place, grid, results, found)
        draw(place, grid, results)
        total = f"{len(results.found)} results, {len(results.missing)} missing"
        print(visible(f"{place}: {', '.join([*FILES, FIGURE])} of {total}"))
        for line in results.missing:
            print(visible(f"missing: {line}"))
    if failed:
        sys.exit(1)


def find_best(folder: Path, out: Path | None, overrides: list[str]) -> None:
    """Search, and write the table of trials.

    Raises:
        UserError: when there is a mistake in the search, before anything is run; or when no trial has a value.
    """
    if find_spec("optuna") is None:
        raise missing_package("study search", "optuna", "search")
    from langevin.study.launch import launch
    from langevin.study.plan import FILE, StudyError
    from langevin.study.search import TABLES, best_first, mistakes_of, search, text, write_tables
    from langevin.study.space import read_search

    hydra = [text for text in overrides if text.startswith("hydra")]
    plan = read_search(folder, tuple(text for text in overrides if text not in hydra))
    if mistakes := mistakes_of(plan):
        raise StudyError(plan.folder / FILE, mistakes)
    trials = search(plan, lambda run_dir, given: launch("train", {run_dir: given}, hydra).get(run_dir))
    place = out or plan.folder
    write_tables(plan, trials, place)
    best = best_first(plan, trials)[0]
    print(visible(f"{place}: {', '.join(TABLES)} of {len(trials)} trials"))
    if best.value is None:
        raise UserError(f"no trial has a value; of the first, {best.note}")
    given = " ".join(f"{option}={text(value)}" for option, value in best.params.items())
    print(visible(f"best: {plan.value} {best.value:.6g} in {best.run_dir}: {given}"))


if __name__ == "__main__":
    main()
