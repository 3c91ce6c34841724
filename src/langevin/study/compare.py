"""The estimates of a study: of each cell, and of the differences between the arms of each factor."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from langevin.study.estimate import Estimate, estimate, paired
from langevin.study.results import Results

BySeed = Mapping[int, float]


class Row(NamedTuple):
    """A cell.

    Attributes:
        arms: its arm of each factor.
        values: by the seed.
        estimate: of their mean.
    """

    arms: Mapping[str, str]
    values: BySeed
    estimate: Estimate


class Difference(NamedTuple):
    """Of one arm of a factor from another.

    Attributes:
        factor: the factor.
        context: the arms of the others; empty for the mean over all their combinations.
        first: an arm.
        second: another; the difference is second minus first.
        estimate: over the seeds.
    """

    factor: str
    context: Mapping[str, str]
    first: str
    second: str
    estimate: Estimate


def rows_of(results: Results, measure: str) -> list[Row]:
    """The cells that are there, in the study's order."""
    name = results.names[measure]
    cells: dict[tuple[tuple[str, str], ...], dict[int, float]] = {}
    for result in results.found:
        cells.setdefault(tuple(result.arms.items()), {})[result.seed] = result.values[name]
    return [Row(dict(arms), values, estimate(list(values.values()))) for arms, values in cells.items()]


def differences_of(rows: Sequence[Row], factors: Mapping[str, Sequence[str]]) -> Iterator[Difference]:
    """Of every pair of arms of every factor: on the mean over the other factors' arms, then with each of them.

    Args:
        rows: the cells.
        factors: of each the names of its arms.
    """
    values = {tuple(row.arms.values()): row.values for row in rows}
    for position, (factor, arms) in enumerate(factors.items()):
        others = [list(names) for name, names in factors.items() if name != factor]
        for first, second in itertools.combinations(arms, 2):
            both = {}
            for rest in itertools.product(*others):
                cells = [(*rest[:position], arm, *rest[position:]) for arm in (first, second)]
                if all(cell in values for cell in cells):
                    both[rest] = [values[cell] for cell in cells]
            if len(both) > 1:
                before, after = zip(*both.values(), strict=True)
                yield Difference(factor, {}, first, second, paired(before, after))
            for rest, (one, other) in both.items():
                context = dict(zip((name for name in factors if name != factor), rest, strict=True))
                yield Difference(factor, context, first, second, paired([one], [other]))
