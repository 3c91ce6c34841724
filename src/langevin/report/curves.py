"""What a run has logged, column by column, thinned out to what can be seen."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from langevin.runs import PROTOCOL, as_number

EVALUATED = "eval/"
SPEED = "train/images_per_second"
SHOWN_BAD = 20
"""How many of the steps with values that are not finite are named."""


@dataclass
class Curve:
    """A column of numbers against steps.

    Attributes:
        x: steps, rising.
        y: the values there; None where not finite.
        means: where the curve was thinned out, of each stretch the mean step, the mean value and the number of finite
            values, as three lists.
        rows: how many values were logged.
        bad: how many of them are not finite.
        bad_steps: the first steps of these.
    """

    x: list[int]
    y: list[float | None]
    means: tuple[list[float], list[float], list[int]] | None
    rows: int
    bad: int
    bad_steps: list[int]


class Logged(NamedTuple):
    """A `metrics.csv`.

    Attributes:
        columns: the numbers, each with its step.
        protocols: by steps, the names of the protocols of the evaluated values.
    """

    columns: dict[str, list[tuple[int, float]]]
    protocols: dict[int, str]


def logged_in(rows: Iterable[tuple[int, dict[str, str]]]) -> Logged:
    """What stands in some rows of texts, each with its step."""
    logged = Logged({}, {})
    for step, row in rows:
        if protocol := row.pop(PROTOCOL, ""):
            logged.protocols[step] = protocol
        for name, text in row.items():
            if text and (number := as_number(text)) is not None:
                logged.columns.setdefault(name, []).append((step, number))
    return logged


def is_evaluated(column: str) -> bool:
    """Whether a column's values have protocols."""
    return column.startswith(EVALUATED)


def thinned(points: Sequence[tuple[int, float]], most: int) -> Curve:
    """A curve of about `most` points: the first, the last, and of each stretch the least and the greatest."""
    bad = [step for step, value in points if not math.isfinite(value)]
    kept = list(points)
    means = None
    if len(points) > most:
        number = max(1, most // 2)
        ends = [len(points) * i // number for i in range(number + 1)]
        stretches = [points[start:end] for start, end in pairwise(ends)]
        kept = [points[0], *(point for stretch in stretches for point in extremes(stretch)), points[-1]]
        kept = [point for point, before in zip(kept, [None, *kept], strict=False) if point is not before]
        finite = [part for stretch in stretches if (part := [point for point in stretch if math.isfinite(point[1])])]
        means = (
            [math.fsum(step for step, _ in part) / len(part) for part in finite],
            [math.fsum(value for _, value in part) / len(part) for part in finite],
            [len(part) for part in finite],
        )
    return Curve(
        x=[step for step, _ in kept],
        y=[value if math.isfinite(value) else None for _, value in kept],
        means=means,
        rows=len(points),
        bad=len(bad),
        bad_steps=bad[:SHOWN_BAD],
    )


def extremes(stretch: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The points of the least and the greatest value, and the first that is not finite, in their order."""
    finite = [index for index, (_, value) in enumerate(stretch) if math.isfinite(value)]
    kept = {next((index for index, (_, value) in enumerate(stretch) if not math.isfinite(value)), None)}
    if finite:
        kept |= {pick(finite, key=lambda index: stretch[index][1]) for pick in (min, max)}
    return [stretch[index] for index in sorted(index for index in kept if index is not None)]


def seconds_of(speed: Sequence[tuple[int, float]], batch_size: int) -> float | None:
    """How long training took by its logged speed, in seconds; None where no speed is logged."""
    known = [(step, rate) for step, rate in speed if math.isfinite(rate) and rate > 0]
    if not known:
        return None
    return sum((step - before) * batch_size / rate for (before, _), (step, rate) in pairwise([(0, 1.0), *known]))
