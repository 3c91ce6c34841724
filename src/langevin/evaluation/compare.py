"""A table of values, whose protocols must be equal except for the parts declared to vary."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from langevin.errors import UserError
from langevin.evaluation.protocol import differing, may_vary
from langevin.evaluation.values import FILE, read_measured
from langevin.files import write_atomically


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
    rows = [["place", "step", *shown, *names]]
    for measured in found:
        first = next(iter(measured.protocols.values()), {})
        settings = ["" if path not in first else str(first[path]) for path in shown]
        values = [f"{measured.values[name]:.6g}" if name in measured.values else "" for name in names]
        rows.append(
            [str(measured.place.parent), "" if measured.step is None else str(measured.step), *settings, *values]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if unexplained:
        print("not comparable, shown because of force=true:\n" + "\n".join(unexplained))
    if out:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_atomically(Path(out), lambda file: file.write(text.getvalue().encode()))


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
