"""What a run has logged in its `metrics.csv`: read without torch, from the end where that is enough.

The file may be as long as training was: a million rows are read in about a second. A row is a line; a cut last line is
no row. What cannot be read is left out and reported.
"""

import csv
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from langevin.files import require_regular
from langevin.visible import visible

PROTOCOL = "eval/protocol"
"""A column of names, some of which look like numbers."""
STEP = "step"
BLOCK = 1 << 20
"""Bytes that are read at once."""
LONGEST = 1 << 20
"""Bytes of the longest row: what is longer is none."""
DIGITS = 15
"""Of the greatest step."""


class LogError(Exception):
    """What is wrong with a `metrics.csv`, in a few words."""


def matching(pattern: str, names: Collection[str]) -> list[str]:
    """The names of logged values that a name or a pattern such as "eval/fd_*@500" means, in their order."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


@dataclass
class Series:
    """The numbers of a column, in the order of the file.

    Attributes:
        blocks: their steps and values, a pair of arrays for each part of the file. Columns share arrays of steps.
    """

    blocks: list[tuple[array, array]] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[int, float]]:
        return ((step, value) for steps, values in self.blocks for step, value in zip(steps, values, strict=True))


@dataclass
class Logged:
    """A `metrics.csv`.

    Attributes:
        columns: the numbers, each with its step.
        protocols: by steps, the names of the protocols of the evaluated values.
        damage: what could not be read, in a few words; empty where all could.
    """

    columns: dict[str, Series] = field(default_factory=dict)
    protocols: dict[int, str] = field(default_factory=dict)
    damage: str = ""


def last_values(path: Path, damage: list[str]) -> dict[str, tuple[float, int]]:
    """The last number of each column and its step, in the order of the columns; reads no more than it takes.

    Args:
        path: the file; where there is none, there are no numbers.
        damage: is given what cannot be read, in a few words.
    """
    found: dict[str, tuple[float, int]] = {}
    names: list[str] = []
    missing: list[int] = []
    for step, fields, names in _rows_backwards(path, damage):
        if not found:
            missing = [at for at, name in enumerate(names) if name and name not in (STEP, PROTOCOL)]
        for at in [at for at in missing if at < len(fields) and fields[at]]:
            if (number := as_number(fields[at])) is not None:
                found[names[at]] = (number, step)
                missing.remove(at)
        if not missing:
            break
    return {name: found[name] for name in names if name in found}


def texts_at(path: Path, step: int) -> dict[str, str]:
    """The fields that are not empty of the row of a step, by their columns; reads the rows from there on."""
    for at, fields, names in _rows_backwards(path, []):
        if at == step:
            return {name: text for name, text in zip(names, fields, strict=False) if name != STEP and name and text}
        if at < step:
            break
    return {}


def read_logged(path: Path) -> Logged:
    """All numbers of a file."""
    logged = Logged()
    try:
        with require_regular(path).open("rb") as file:
            names = _header(file)
            for lines in _blocks(file):
                _add(logged, names, lines)
    except FileNotFoundError:
        pass
    except OSError as error:
        logged.damage = error.strerror or type(error).__name__
    except LogError as error:
        logged.damage = str(error)
    return logged


def whole_rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], bool]:
    """All rows, for a caller that continues the file and would lose any row left out.

    Args:
        path: an ordinary file.

    Returns:
        the rows in their order, each its step and the fields that are not empty by their columns; and whether there is
        a cut line behind them, as a kill leaves it, which is no row.

    Raises:
        LogError: when any other line is damaged.
        OSError: when it cannot be read.
    """
    whole, end, rest = require_regular(path).read_bytes().rpartition(b"\n")
    rows: list[tuple[int, dict[str, str]]] = []
    names: list[str] = []
    for number, line in enumerate(whole.split(b"\n") if end else [], start=1):
        text = _text(line)
        if not text.isprintable() or "\ufffd" in text:
            raise LogError(f"line {number} is no text")
        if number == 1:
            names = _names(text)
        elif text:
            fields = _fields(text)
            if len(fields) != len(names):
                raise LogError(f"line {number} has {len(fields)} fields, but the first line names {len(names)} columns")
            step = _step(fields, names.index(STEP))
            rows.append((step, {n: field for n, field in zip(names, fields, strict=True) if n != STEP and n and field}))
    return rows, bool(rest)


def as_number(text: str) -> float | None:
    """A number, or None for a text."""
    try:
        return float(text)
    except ValueError:
        return None


def _add(logged: Logged, names: Sequence[str], lines: Sequence[str]) -> None:
    """Add some rows, whole columns at once: the work of a row is done in C."""
    rows = [line.split(",") for line in lines]
    at = names.index(STEP)
    try:
        if {len(row) for row in rows} != {len(names)} or any('"' in line for line in lines):
            raise ValueError
        columns = list(zip(*rows, strict=True))
        steps = array("q", map(int, columns[at]))
        if min(steps) < 0 or max(steps) >= 10**DIGITS:
            raise ValueError
    except (ValueError, OverflowError):  # some row is damaged, or out of the ordinary
        rows, numbers = [], []
        for line in filter(None, lines):
            try:
                fields = _fields(line)
                numbers.append(_step(fields, at))
                rows.append([*fields, *[""] * len(names)][: len(names)])
            except LogError as error:
                logged.damage = logged.damage or str(error)
        columns, steps = list(zip(*rows, strict=True)), array("q", numbers)
    for name, texts in zip(names, columns, strict=False):
        if name == PROTOCOL:
            logged.protocols.update((step, text) for step, text in zip(steps, texts, strict=True) if text)
        elif name and name != STEP and any(texts) and (block := _numbers(steps, texts)):
            logged.columns.setdefault(name, Series()).blocks.append(block)


def _numbers(steps: array, texts: Sequence[str]) -> tuple[array, array] | None:
    """The numbers among some texts, with their steps; None where there is none."""
    try:
        if "" not in texts:
            return steps, array("d", map(float, texts))
    except ValueError:
        pass
    found = [(s, number) for s, text in zip(steps, texts, strict=True) if (number := as_number(text)) is not None]
    return (array("q", [s for s, _ in found]), array("d", [number for _, number in found])) if found else None


def _rows_backwards(path: Path, damage: list[str]) -> Iterator[tuple[int, list[str], list[str]]]:
    """The rows from the last to the first: the step, the fields, and the names of the columns."""
    try:
        with require_regular(path).open("rb") as file:
            names = _header(file)
            for line in filter(None, _lines_backwards(file, file.tell())):
                try:
                    fields = _fields(line)
                    step = _step(fields, names.index(STEP))
                except LogError as error:
                    damage[:] = damage or [str(error)]  # once: all rows may be damaged
                else:
                    yield step, fields, names
    except FileNotFoundError:
        pass
    except OSError as error:
        damage.append(error.strerror or type(error).__name__)
    except LogError as error:
        damage.append(str(error))


def _header(file: BinaryIO) -> list[str]:
    line = file.readline(LONGEST)
    if not line.endswith(b"\n"):
        if len(line) == LONGEST:
            raise LogError("its first line is too long")
        return [STEP]  # empty, or just begun
    return _names(_text(line))


def _names(line: str) -> list[str]:
    names = _fields(line)
    if STEP not in names:
        raise LogError("its first line names no column 'step'")
    return names


def _text(line: bytes) -> str:
    return line.rstrip(b"\r\n").decode(errors="replace")


def _fields(line: str) -> list[str]:
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line]))
    except (csv.Error, StopIteration) as error:
        raise LogError(f"a row cannot be read ({error})") from error


def _step(fields: Sequence[str], at: int) -> int:
    text = fields[at] if at < len(fields) else ""
    if not text.isdecimal() or len(text) > DIGITS:
        shown = visible(text[:20])[:20] + ("…" if len(text) > 20 else "")
        raise LogError(f"a row has the step '{shown}'")
    return int(text)


def _blocks(file: BinaryIO) -> Iterator[list[str]]:
    """The lines from here on, many at once."""
    rest = b""
    while block := file.read(BLOCK):
        whole, end, rest = (rest + block).rpartition(b"\n")
        if end:
            text = whole.decode(errors="replace")
            yield (text.replace("\r", "") if "\r" in text else text).split("\n")
        if len(rest) > LONGEST:
            raise LogError("a row is too long")


def _lines_backwards(file: BinaryIO, start: int) -> Iterator[str]:
    """The complete lines from the end of a file to `start`, the last first."""
    position, rest, cut = file.seek(0, 2), b"", True
    while position > start:
        size = min(BLOCK, position - start)
        position -= size
        file.seek(position)
        # Of a file that is rewritten meanwhile, less may be there.
        first, *lines = (file.read(size) + rest).split(b"\n")
        if lines and cut:  # what follows the last line end: a kill may have cut it, or nothing
            lines.pop()
            cut = False
        for line in reversed(lines):
            yield _text(line)
        rest = first
        if len(rest) > LONGEST:
            raise LogError("a row is too long")
    if not cut:
        yield _text(rest)
