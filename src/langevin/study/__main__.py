"""`python -m langevin.study FOLDER [run|table] [--out FOLDER] [-- OVERRIDES]`: runs a study's grid, makes its table."""

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
is there. The grid is run here, one run after another, or by another of Hydra's launchers: -- hydra/launcher=slurm"""


def main() -> None:
    """Read the command line; run, and make the table."""
    given = sys.argv[1:]
    own, overrides = (given[: given.index("--")], given[given.index("--") + 1 :]) if "--" in given else (given, [])
    parser = argparse.ArgumentParser("python -m langevin.study", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the study, such as experiments/schedules")
    parser.add_argument("task", nargs="?", choices=("run", "table"), help="one of the two; both where left out")
    parser.add_argument("--out", type=Path, help="where the table goes, if not into FOLDER")
    parser.epilog = "What follows -- are overrides of train.py for all runs, or Hydra's own (hydra/launcher=slurm)."
    arguments = parser.parse_args(own)
    if not any(text.startswith(f"{LAUNCHER}=") for text in overrides):  # who launches is not interrupted
        listen()
    calm_threads()
    warnings.filterwarnings("ignore", ".*`srun` command is available")  # Lightning's advice
    try:
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


if __name__ == "__main__":
    main()
