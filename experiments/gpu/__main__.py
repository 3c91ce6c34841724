"""Everything that a GPU alone can tell, in one command: is it right, how fast is it, what does it learn?

Usage: ``python -m experiments.gpu all|check|speed|train --out DIR [--budget SECONDS]``; see the README, and ``--help``.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.gpu import check, report, speed, train
from experiments.gpu.day import Day
from experiments.speed.benchmark import positive

from langevin.cli import fail

PARTS: dict[str, tuple[Callable[[Day, float], None], float]] = {
    "check": (check.run, 0.32),
    "speed": (speed.run, 0.35),
    "train": (train.run, 1.0),
}
"""What is done, in this order, and the largest share of the whole time that a part may take while others follow."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, and write after each what stands."""
    options = parser().parse_args(arguments)
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        fail("--device is cuda, but torch finds no NVIDIA GPU on this machine; allowed here: cpu, for a rehearsal")
    if options.cifar10 is not None and not options.cifar10.exists():
        fail(f"--cifar10 is {options.cifar10}, which does not exist; allowed: CIFAR-10's archive, folder or zip")
    with tempfile.TemporaryDirectory(prefix="langevin-gpu-") as temporary:
        work = (options.work or Path(temporary)).absolute()
        cifar10 = None if options.cifar10 is None else options.cifar10.absolute()
        day = Day(options.out.absolute(), work, options.device, options.budget, cifar10)
        day.open()
        chosen = list(PARTS) if options.part == "all" else [options.part]
        for name in chosen:
            part, share = PARTS[name]
            limit = day.left if name == chosen[-1] else share * options.budget
            day.say(f"== {name}, at most {min(limit, day.left):.0f} s")
            part(day, limit)
            report.write(day.out, day.results)
        print(report.tables(day.results))
        day.say(f"done; the results are in {options.out}")


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    asked = argparse.ArgumentParser("python -m experiments.gpu", description=(__doc__ or "").splitlines()[0])
    asked.add_argument("part", choices=("all", *PARTS), help="what to do")
    asked.add_argument("--out", type=Path, required=True, help="folder of the results; parts done before are kept")
    asked.add_argument("--budget", type=positive, default=570, help="seconds in all (default: %(default)s)")
    asked.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal at toy size (default: cuda)"
    )
    asked.add_argument("--cifar10", type=Path, help="its archive, or a folder or zip of images (default: download it)")
    asked.add_argument("--work", type=Path, help="folder of runs and caches (default: a temporary one)")
    return asked


if __name__ == "__main__":
    main()
