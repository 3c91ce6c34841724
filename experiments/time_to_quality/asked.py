"""What every command of this study is asked; imports no torch, whose threads are to be calmed first."""

import argparse
from pathlib import Path

HERE = Path(__file__).parent


def ask(parser: argparse.ArgumentParser) -> None:
    """Add what samples are measured by, which data they are of, and where the results go."""
    parser.add_argument("classifier", type=Path, help="run of a classifier of the images, whose features measure")
    parser.add_argument("--samples", type=int, default=500, help="that are measured at a time (default: 500)")
    parser.add_argument(
        "--task", nargs="+", default=[], help="options of train.py for all: other data, network, steps (default: none)"
    )
    parser.add_argument("--results", type=Path, default=HERE, help="folder of the results (default: this file's)")
