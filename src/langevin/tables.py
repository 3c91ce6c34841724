"""Tables in a terminal, and as plain text in a file."""

import os
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

TableColumns = Mapping[str, Sequence[str]]
"""The cells of columns by their heads, all of one length."""

GAP = 2
"""Spaces between two columns."""
STYLES = {"running": "cyan", "done": "green", "failed": "red", "unfinished": "yellow"}
"""The colours of whole cells in a terminal."""


def output_width() -> int | None:
    """The columns that the output has room for; None where it is a file, which has room for any."""
    is_file = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return None if is_file else shutil.get_terminal_size().columns


def total_width(columns: TableColumns) -> int:
    """The width of a table."""
    return sum(max(map(len, [head, *cells])) for head, cells in columns.items()) + GAP * (len(columns) - 1)


def fitting(
    columns: TableColumns, expendable: Sequence[str], width: int | None
) -> tuple[dict[str, Sequence[str]], int]:
    """Leave columns out until a table fits.

    Args:
        columns: the table.
        expendable: which may be left out, the first to go first.
        width: what there is room for; None: for all.

    Returns:
        The columns that are left, and how many are not.
    """
    left = dict(columns)
    for head in expendable:
        if width is None or total_width(left) <= width:
            break
        del left[head]
    return left, len(columns) - len(left)


def is_number(text: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def natural(cells: Sequence[str]) -> list[tuple[bool, float, str]]:
    """Sorts rows by their cells: numbers by their size, before texts."""
    return [(False, float(cell), "") if is_number(cell) else (True, 0.0, cell) for cell in cells]


def aligned(columns: TableColumns, texts: Collection[str], width: int | None) -> Iterator[str]:
    """The lines of a table, none of them longer than `width`.

    Args:
        columns: the table.
        texts: the columns that are flushed left; others hold numbers.
        width: longer lines are cut; None: none is.
    """
    widths = {head: max(map(len, [head, *cells])) for head, cells in columns.items()}
    for row in zip(*([head, *cells] for head, cells in columns.items()), strict=True):
        cells = [
            cell.ljust(size) if head in texts else cell.rjust(size)
            for cell, (head, size) in zip(row, widths.items(), strict=True)
        ]
        line = (" " * GAP).join(cells).rstrip()
        yield line if width is None or len(line) <= width else line[: width - 1] + "…"


def print_table(columns: TableColumns, texts: Collection[str], width: int | None) -> None:
    """Print a table: with colours where stdout is a terminal, else plain; see `aligned`.

    The cells must be printable, see `langevin.visible`.
    """
    if not sys.stdout.isatty():
        print("\n".join(aligned(columns, texts, width)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for head in columns:
        table.add_column(Text(head), justify="left" if head in texts else "right", no_wrap=True, overflow="ellipsis")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
    Console(width=width).print(table)
