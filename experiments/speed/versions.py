"""Does this version start, train and sample as fast as another, in as much memory?

Usage: ``python -m experiments.speed.versions CHECKOUT [OPTIONS] [OPTIONS OF train.py]``; see README, and ``--help``.

Each version runs its own `train.py` and `sample.py` in processes of its own. Nothing of either is imported here but the
clock: a callback that Lightning is given from outside holds a fit after each step until it is its turn again.
"""

import argparse
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any, NamedTuple, TypeVar

HERE = Path(__file__).resolve().parents[2]
FIT = ["train.py", "callbacks=[]", "trainer.val_check_interval=null"]
"""A fit without checkpoints, grids and validation, which come by the clock or rarely."""
Found = TypeVar("Found")
LONGEST = 100_000
"""Steps of a fit that is stopped from outside."""


class Cost(NamedTuple):
    """What a process, or a step in it, took: CPU seconds, and the most bytes that were resident."""

    cpu: float
    memory: float


def held_fit(report: int, arguments: Sequence[str]) -> None:
    """Run a script of the checkout in this folder; each step of its fit waits for a line, and reports its CPU time.

    Args:
        report: the file descriptor to which CPU seconds are written, a line a step.
        arguments: the script and its options.
    """
    from lightning.pytorch import Callback, Trainer

    class Held(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.wait("ready")

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.wait(str(time.process_time() - self.began))

        def wait(self, line: str) -> None:
            os.write(report, f"{line}\n".encode())
            if not sys.stdin.readline():
                os._exit(0)  # who measures is gone
            self.began = time.process_time()

    fit = Trainer.fit

    def fit_held(self: Any, *given: Any, **named: Any) -> Any:
        self.callbacks.append(Held())
        return fit(self, *given, **named)

    Trainer.fit = fit_held  # type: ignore[method-assign]
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")


class Version:
    """A checkout whose scripts are run.

    Args:
        root: its folder.
        options: of train.py.
        folder: for its runs.
    """

    def __init__(self, root: Path, options: Sequence[str], folder: Path) -> None:
        self.root = root
        self.options = [*options, f"output_dir={folder}"]
        self.runs = folder
        self.environment = os.environ | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}

    def command(self, *arguments: str) -> Cost:
        """Run a script to its end."""
        with tempfile.TemporaryFile() as written:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.root,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=written,
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                written.seek(0)
                sys.exit(f"{' '.join(arguments)} failed in {self.root}:\n{written.read().decode()}")
        return Cost(used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)

    def first_step(self, number: int) -> Cost:
        """Train for one step: the run of this number."""
        return self.command(
            "train.py", *self.options, "callbacks=[checkpoint]", "trainer.max_steps=1", f"name=first{number}"
        )

    def sample(self, options: Sequence[str], number: int) -> Cost:
        """Draw samples from the first run."""
        return self.command("sample.py", f"checkpoint={self.runs / 'first0'}", *options, "overwrite=true")

    @contextmanager
    def fit(self) -> Iterator[Callable[[int], float]]:
        """A fit that makes one step at each call, which returns its CPU seconds."""
        receiver, sender = os.pipe()
        arguments = [*FIT, *self.options, f"trainer.max_steps={LONGEST}", "name=fit"]
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "held", str(sender), *arguments],
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(sender,),
        )
        os.close(sender)
        with os.fdopen(receiver) as reports:
            assert process.stdin is not None
            hold: IO[bytes] = process.stdin

            def line() -> str:
                if not (read := reports.readline()):
                    sys.exit(f"the fit in {self.root} ended")
                return read

            def step(number: int) -> float:
                hold.write(b"\n")
                hold.flush()
                return float(line())

            try:
                line()  # it is ready
                yield step
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()


def in_turns(turns: Mapping[str, Callable[[int], Found]], warm_up: int, rounds: int) -> dict[str, list[Found]]:
    """What every one returns, given the round's number; another one is the first in each round."""
    found: dict[str, list[Found]] = {name: [] for name in turns}
    for number in range(warm_up + rounds):
        names = list(turns) if number % 2 else list(turns)[::-1]
        for name in names:
            value = turns[name](number)
            if number >= warm_up:
                found[name].append(value)
    return found


def row(what: str, found: Mapping[str, Sequence[float]], unit: str) -> str:
    """A line of the table: both medians, and the median and range of the ratios within each round."""
    here, there = found["here"], found["there"]
    ratios = sorted(a / b for a, b in zip(here, there, strict=True))
    spread = f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    return f"| {what} | {median(here):.3f} {unit} | {median(there):.3f} {unit} | {spread} |"


def rows(what: str, found: Mapping[str, Sequence[Cost]]) -> str:
    """The lines of a command."""
    cpu = row(f"{what}, CPU time", {name: [cost.cpu for cost in costs] for name, costs in found.items()}, "s")
    memory = {name: [cost.memory / 1e9 for cost in costs] for name, costs in found.items()}
    return cpu + "\n" + row(f"{what}, peak of memory", memory, "GB")


def measure(asked: argparse.Namespace, folder: Path) -> Iterator[str]:
    """The table, as it is measured."""
    options = {"here": (HERE, asked.here), "there": (asked.checkout.resolve(), asked.there)}
    versions = {name: Version(root, [*asked.overrides, *own], folder / name) for name, (root, own) in options.items()}
    yield "| | here | there | here / there (range) |\n| --- | --- | --- | --- |"
    firsts = {name: version.first_step for name, version in versions.items()}
    yield rows("command to the end of the first step", in_turns(firsts, min(1, asked.warm_up), asked.commands))
    with ExitStack() as stack:
        steps = {name: stack.enter_context(version.fit()) for name, version in versions.items()}
        yield row("a step of training, CPU time", in_turns(steps, asked.warm_up, asked.rounds), "s")
    samplings = {name: partial(version.sample, asked.sample) for name, version in versions.items()}
    yield rows("command that samples", in_turns(samplings, 0, asked.commands))


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    asked = argparse.ArgumentParser("python -m experiments.speed.versions", description=(__doc__ or "").splitlines()[0])
    asked.add_argument("checkout", type=Path, help="the other version's folder: git worktree add CHECKOUT COMMIT")
    asked.add_argument("overrides", nargs="*", help="options of train.py, for both: data, model, trainer=cpu, ...")
    asked.add_argument("--here", type=str.split, default=[], help="options of train.py for this version alone")
    asked.add_argument("--there", type=str.split, default=[], help="options of train.py for the other alone")
    asked.add_argument("--sample", type=str.split, required=True, help="options of sample.py, but checkpoint")
    asked.add_argument("--rounds", type=int, default=10, help="steps that count (default: %(default)s)")
    asked.add_argument(
        "--warm-up", type=int, default=3, help="steps before them; of commands at most one (default: %(default)s)"
    )
    asked.add_argument("--commands", type=int, default=3, help="of each whole command (default: %(default)s)")
    return asked


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    asked = parser().parse_intermixed_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(asked, Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["held"]:
        held_fit(int(sys.argv[2]), sys.argv[3:])
    else:
        main()
