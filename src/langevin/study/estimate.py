"""An estimate of a mean from some seeds: its confidence interval by Student's t."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95
ROUNDING = 1e-12
"""A relative spread below this is rounding."""


@dataclass(frozen=True)
class Estimate:
    """Of independent values of one thing.

    Attributes:
        number: of values.
        mean: theirs; nan where there are none, or one is not finite.
        deviation: their standard deviation (n - 1); None of fewer than two.
        low: the lower end of the mean's interval, and
        high: the upper; both None where there is none: fewer than two values, all alike, or not finite.
    """

    number: int
    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def why_none(self) -> str:
        """Why there is no interval."""
        if not math.isfinite(self.mean):
            return "not finite" if self.number else "nothing measured"
        return "one seed: no interval" if self.number == 1 else "no spread: no interval"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of some values, with its interval."""
    number = len(values)
    if number == 0 or not all(map(math.isfinite, values)):
        return Estimate(number, math.nan)
    mean = math.fsum(values) / number
    if number == 1:
        return Estimate(1, mean)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (number - 1))
    if deviation <= ROUNDING * max(map(abs, values)):
        return Estimate(number, mean, 0.0)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * deviation / math.sqrt(number)
    return Estimate(number, mean, deviation, mean - half, mean + half)


def paired(first: Sequence[Mapping[int, float]], second: Sequence[Mapping[int, float]]) -> Estimate:
    """The difference that it makes, second minus first, over the seeds that both share.

    Args:
        first: values by their seeds, in one or several contexts.
        second: the like, in the same contexts. A seed counts once: with the mean of its differences over the contexts,
            and only where it has all of them.
    """
    contexts = list(zip(first, second, strict=True))
    shared = sorted(set.intersection(*(before.keys() & after.keys() for before, after in contexts)))
    return estimate([math.fsum(after[s] - before[s] for before, after in contexts) / len(contexts) for s in shared])


def verdict(difference: Estimate, first: str, second: str, better: str) -> str:
    """The verdict on a difference, second minus first.

    Args:
        difference: the estimate.
        first: a name.
        second: another.
        better: "up" or "down".
    """
    if difference.low is None or difference.high is None:
        return "no difference detected" if difference.mean == 0 else difference.why_none
    if difference.low <= 0 <= difference.high:
        return "no difference detected"
    return f"{second if (difference.low > 0) == (better == 'up') else first} is better"
