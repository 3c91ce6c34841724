"""How the learning rate changes over a run.

A schedule is a factor, and torch's `LambdaLR` applies it. Torch's `LinearLR` and `CosineAnnealingLR` are not used: with
them each rate is computed from the one before, and so depends on all steps taken so far; and torch has no inverse
square root.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

from annotated_types import Ge, Le

from langevin.errors import OptionError


class LRSchedule(ABC):
    """A factor on the optimizer's learning rate: a function of the step alone, so that a resumed run has the same."""

    @abstractmethod
    def __call__(self, step: int) -> float:
        """The factor for optimizer step `step` (0 is the first); at least 0."""


class WarmUp(LRSchedule):
    """Linear from nothing to the full rate, then constant. Source: DDPM's code (5000 steps).

    Args:
        steps: the optimizer steps of warming up; 0 for none.

    Raises:
        UserError: when steps is negative.
    """

    def __init__(self, steps: int = 5000) -> None:
        if steps < 0:
            raise OptionError("steps", f"is {steps}; allowed: at least 0")
        self.steps = steps

    def __call__(self, step: int) -> float:
        """See `LRSchedule`."""
        return min(1.0, (step + 1) / self.steps) if self.steps else 1.0


class Decay(WarmUp, ABC):
    """Warm-up, then from the full rate to a fraction of it.

    Args:
        steps: the optimizer steps of warming up; 0 for none.
        total_steps: the optimizer steps after which the rate stays at `final`, warm-up included; above `steps`.
        final: the factor at the end; from 0 to 1.

    Raises:
        UserError: when steps is negative, or total_steps not above it.
    """

    def __init__(
        self,
        steps: int = 1000,
        total_steps: Annotated[int, Ge(1)] = 100_000,
        final: Annotated[float, Ge(0), Le(1)] = 0.0,
    ) -> None:
        super().__init__(steps)
        if total_steps <= steps:
            raise OptionError("total_steps", f"is {total_steps}; allowed: above steps={steps}, which warm up")
        self.total_steps = total_steps
        self.final = final

    @abstractmethod
    def remaining(self, done: float) -> float:
        """How much of the way down remains, from 1 to 0, where the fraction `done` of its steps is done."""

    def __call__(self, step: int) -> float:
        """See `LRSchedule`."""
        done = min(1.0, max(0, step - self.steps) / (self.total_steps - self.steps))
        return super().__call__(step) * (self.final + (1 - self.final) * self.remaining(done))


class CosineDecay(Decay):
    """Warm-up, then half a cosine. Source: SGDR (Loshchilov & Hutter 2017)."""

    def remaining(self, done: float) -> float:
        """See `Decay`."""
        return (1 + math.cos(math.pi * done)) / 2


class LinearDecay(Decay):
    """Warm-up, then a straight line. Source: BERT (Devlin et al. 2019)."""

    def remaining(self, done: float) -> float:
        """See `Decay`."""
        return 1 - done


class InverseSqrtDecay(WarmUp):
    """Warm-up, constant, then as one over the square root of the step. Source: EDM2 (Karras et al. 2024).

    With `decay_from` equal to `steps` it is the schedule of the Transformer (Vaswani et al. 2017). It has no end: a run
    may be extended.

    Args:
        steps: the optimizer steps of warming up; 0 for none.
        decay_from: the optimizer step up to which the rate is constant; at least 1.

    Raises:
        UserError: when steps is negative.
    """

    def __init__(self, steps: int = 1000, decay_from: Annotated[int, Ge(1)] = 10_000) -> None:
        super().__init__(steps)
        self.decay_from = decay_from

    def __call__(self, step: int) -> float:
        """See `LRSchedule`."""
        return super().__call__(step) / math.sqrt(max(1.0, (step + 1) / self.decay_from))
