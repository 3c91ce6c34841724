"""What a run has logged, column by column, thinned out to what can be seen."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from langevin.logged import Series

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


def is_evaluated(column: str) -> bool:
    """Whether a column's values have protocols."""
    return column.startswith(EVALUATED)


def arrays_of(series: Series) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Its steps and values."""
    steps = [np.frombuffer(steps, np.int64) for steps, _ in series.blocks]
    values = [np.frombuffer(values, np.float64) for _, values in series.blocks]
    return (np.concatenate(steps), np.concatenate(values)) if steps else (np.empty(0, np.int64), np.empty(0))


def thinned(series: Series, most: int) -> Curve:
    """A curve of about `most` points: the first, the last, and of each stretch the least and the greatest."""
    steps, values = arrays_of(series)
    finite = np.isfinite(values)
    kept = np.arange(len(values))
    means: tuple[list[float], list[float], list[int]] | None = None
    if len(values) > most:
        number = max(1, most // 2)
        ends = [len(values) * i // number for i in range(number + 1)]
        chosen = {0, len(values) - 1}
        means = ([], [], [])
        for start, end in pairwise(ends):
            inside = finite[start:end]
            chosen.update(start + at for at in extremes(values[start:end], inside))
            if count := int(inside.sum()):
                # Divided before the sum, which may be beyond what a number can hold.
                means[0].append(float((steps[start:end][inside] / count).sum()))
                means[1].append(float((values[start:end][inside] / count).sum()))
                means[2].append(count)
        kept = np.array(sorted(chosen))
    bad = steps[~finite]
    return Curve(
        x=steps[kept].tolist(),
        y=[value if is_finite else None for value, is_finite in zip(values[kept].tolist(), finite[kept], strict=True)],
        means=means,
        rows=len(values),
        bad=len(bad),
        bad_steps=bad[:SHOWN_BAD].tolist(),
    )


def extremes(values: NDArray[np.float64], finite: NDArray[np.bool_]) -> set[int]:
    """Where the least and the greatest of some values are, and the first that is not finite."""
    kept = set() if finite.all() else {int(finite.argmin())}
    if finite.any():
        kept |= {int(np.where(finite, values, np.inf).argmin()), int(np.where(finite, values, -np.inf).argmax())}
    return kept


def seconds_of(speed: Series, batch_size: int) -> float | None:
    """How long training took by its logged speed, in seconds; None where no speed is logged."""
    steps, rates = arrays_of(speed)
    known = np.isfinite(rates) & (rates > 0)
    if not known.any():
        return None
    return float((np.diff(steps[known], prepend=0) * (batch_size / rates[known])).sum())
