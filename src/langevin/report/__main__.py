"""The command: reads the runs, writes the page."""

import argparse
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from langevin.errors import UserError, missing_package
from langevin.files import write_atomically
from langevin.report.content import chosen, content_of
from langevin.report.images import fitting, images_of
from langevin.report.page import page
from langevin.visible import visible_lines

LIMIT = 9_500_000
"""Bytes of a page, to which the images shown are limited."""


def report(places: list[Path], out: Path, grids: int | None, vary: list[str]) -> str:
    """Write the page, and print its path.

    Raises:
        UserError: when there is nothing to show, or no place to put it.
    """
    if find_spec("plotly") is None:
        raise missing_package("the report", "plotly", "report")
    if grids is not None and grids < 1:
        raise UserError(f"--grids {grids}: allowed: a whole number, at least 1")
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out {out}: {'is a folder' if out.is_dir() else 'there is no such folder'}; name a file")
    runs = chosen(places)
    content = content_of(runs, vary, datetime.now())
    found = [images_of(run_dir) for run_dir, _ in runs]
    empty = {"images": [], "png": {}, "limited": grids is None}
    kinds, png, damaged = fitting(found, grids, LIMIT - len(page(content | empty)))
    content["faults"] += damaged
    written = page(content | {"images": kinds, "png": png, "limited": grids is None})
    try:
        write_atomically(out, lambda file: file.write(written))
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    number = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    return f"{out}: {number}, {len(written) / 1e6:.1f} MB"


def main() -> None:
    """Read the command line and write the page."""
    parser = argparse.ArgumentParser(
        "python -m langevin.report", description="Puts runs side by side in one HTML file, to be opened in a browser."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run, or a folder that holds runs")
    parser.add_argument("--out", default="report.html", type=Path, help="the file (report.html)")
    parser.add_argument("--grids", type=int, help="how many steps' images are shown (as many as fit into 10 MB)")
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="PATH",
        help="a part of the protocols that may differ among values that are compared, such as samples.sampler",
    )
    arguments = parser.parse_args()
    try:
        print(visible_lines(report(arguments.runs, arguments.out, arguments.grids, arguments.vary)))
    except UserError as error:
        parser.exit(1, visible_lines(f"error: {error}\n"))


if __name__ == "__main__":
    main()
