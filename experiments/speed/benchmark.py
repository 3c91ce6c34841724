"""How fast does it train and sample, beside diffusers and others, and what does all but the network cost?

Usage: ``python -m experiments.speed.benchmark [OPTIONS] [OPTIONS OF train.py]``; see the README, and ``--help``.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from langevin.cli import calm_threads, fail
from langevin.errors import UserError

HERE = Path(__file__).parent
PARTS = ("training", "sampling", "overheads", "memory", "startup")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write results.json, results.md, results.png, and the table in the README."""
    options = parser().parse_intermixed_args(arguments)
    calm_threads()  # as every command does, before torch is imported
    from experiments.speed import report
    from experiments.speed.measure import measure

    try:
        results = measure(options)
    except UserError as error:
        fail(str(error))
    report.write(options.out, results)
    print(report.tables(results))


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    asked = argparse.ArgumentParser(
        "python -m experiments.speed.benchmark", description=(__doc__ or "").splitlines()[0]
    )
    asked.add_argument("overrides", nargs="*", help="options of train.py: data=cifar10, model.checkpointing=true, ...")
    asked.add_argument(
        "--only", type=parts, default=PARTS, help=f"what to measure, of {','.join(PARTS)} (default: all)"
    )
    asked.add_argument("--batch-size", type=positive, default=16, help="images of a step (default: %(default)s)")
    asked.add_argument("--rounds", type=positive, default=5, help="rounds that count (default: %(default)s)")
    asked.add_argument("--warm-up", type=positive, default=3, help="rounds before them (default: %(default)s)")
    asked.add_argument("--steps", type=positive, help="of training in a turn (default: 1 on a CPU, 20 on a GPU)")
    asked.add_argument("--sampling-steps", type=positive, help="of DDIM (default: 5 on a CPU, 50 on a GPU)")
    asked.add_argument(
        "--precision", choices=("32-true", "bf16-mixed"), default="32-true", help="(default: %(default)s)"
    )
    asked.add_argument("--device", choices=("cpu", "cuda"), help="(default: the GPU, if torch finds one)")
    asked.add_argument("--threads", type=positive, help="of torch (default: its own choice)")
    asked.add_argument("--images", type=positive, default=2000, help="to make, of 32 pixels (default: %(default)s)")
    asked.add_argument("--out", type=Path, default=HERE, help="folder of the results (default: that of this file)")
    return asked


def parts(text: str) -> tuple[str, ...]:
    """Some of `PARTS`, with commas between them."""
    chosen = tuple(text.split(","))
    if unknown := set(chosen).difference(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}; allowed: {', '.join(PARTS)}")
    return chosen


def positive(text: str) -> int:
    """A whole number from 1 up."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}; allowed: a whole number from 1 up")
    return int(text)


if __name__ == "__main__":
    main()
