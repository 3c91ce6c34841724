"""A table of values, whose protocols must be equal except for the parts declared to vary."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from langevin.errors import UserError
from langevin.evaluation.protocol import differing, may_vary, telling_settings
from langevin.evaluation.values import FILE, Measured, read_measured
from langevin.files import write_atomically
from langevin.tables import fitting, is_number, natural, output_width, print_table
from langevin.visible import visible


def compare(places: Sequence[str], vary: Sequence[str], force: bool, out: str | None) -> None:
    """Print the values of some metrics.json files side by side; write the table to `out`, a CSV file, where given.

    Args:
        places: the files, or folders with such files in them.
        vary: the parts of the protocols that may differ.
        force: whether values of different protocols are put side by side all the same.
        out: see above.

    Raises:
        UserError: when a file is missing or foreign, or the protocols of a value differ in a part not declared to vary.
    """
    found = [read_measured(file) for place in places for file in files_at(place)]
    names = list(dict.fromkeys(name for measured in found for name in measured.values))
    varied: list[str] = []
    unexplained: list[str] = []
    for name in names:
        protocols = [measured.protocols[name] for measured in found if name in measured.protocols]
        for path in differing(protocols):
            if may_vary(path, vary):
                varied.append(path)
            else:
                seen = dict.fromkeys(json.dumps(protocol.get(path)) for protocol in protocols)
                unexplained.append(f"  {name}: {path}: {' and '.join(seen)}")
    if unexplained and not force:
        raise UserError(
            "compare: these values were computed in different ways and do not belong in one table; name the intended "
            "differences, as in vary=[samples.sampler], or set force=true:\n" + "\n".join(unexplained)
        )
    shown = list(dict.fromkeys(varied))
    print_values(found, names)
    if unexplained:
        print("not comparable, shown because of force=true:\n" + "\n".join(unexplained))
    if out:
        rows = [["place", "step", *shown, *names], *(row_of(measured, shown, names) for measured in found)]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_atomically(Path(out), lambda file: file.write(text.getvalue().encode()))


def row_of(measured: Measured, shown: Sequence[str], names: Sequence[str]) -> list[str]:
    """A row of the CSV file: where the values are, of which step, what varies by its full paths, the values."""
    first = next(iter(measured.protocols.values()), {})
    settings = ["" if path not in first else str(first[path]) for path in shown]
    step = "" if measured.step is None else str(measured.step)
    return [str(measured.place.parent), step, *settings, *(value_of(measured, name) for name in names)]


def value_of(measured: Measured, name: str) -> str:
    """A value as text; nothing where it was not measured."""
    return f"{measured.values[name]:.6g}" if name in measured.values else ""


def print_values(found: Sequence[Measured], names: Sequence[str]) -> None:
    """Print the values, what varies as one types it, and where they are, as far as there is room for it.

    Args:
        found: the values.
        names: of those to be printed.
    """
    width = output_width()
    # The protocols of a file's values differ in nothing but the settings of the metrics.
    settings = telling_settings([next(iter(measured.protocols.values()), {}) for measured in found])
    folders = [str(measured.place.parent) for measured in found]
    common = os.path.commonpath(folders) if len(found) > 1 else ""
    columns = {"place": [os.path.relpath(folder, common) if common else folder for folder in folders]}
    if len({measured.step for measured in found}) > 1:
        columns["step"] = ["" if measured.step is None else str(measured.step) for measured in found]
    columns |= settings | {name: [value_of(measured, name) for measured in found] for name in names}
    order = sorted(range(len(found)), key=lambda row: natural([cells[row] for cells in settings.values()]))
    columns = {visible(head): [visible(cells[row]) for row in order] for head, cells in columns.items()}
    # Those that tell most stay beside the values, and tell the rows apart even without their places.
    heads = [visible(head) for head in settings]
    shown, left_out = fitting(columns, [*heads[:1:-1], "place", *heads[1::-1]], width)
    texts = [head for head, cells in columns.items() if not all(map(is_number, filter(None, cells)))]
    if common not in ("", "."):
        print(visible(f"{common}:"))
    print_table(shown, texts, width)
    if left_out:
        print(f"no room for {', '.join(head for head in columns if head not in shown)}: out=FILE.csv has all columns")


def files_at(place: str) -> list[Path]:
    """The metrics.json files that a place means: itself, or all in the folder.

    Raises:
        UserError: when there is none.
    """
    path = Path(place)
    files = [path] if path.is_file() else sorted(path.rglob(FILE))
    if not files:
        raise UserError(f"compare={place}: there is no {FILE}; give such files, or folders with some in them")
    return files
