"""How the learning rate changes over a run."""

from abc import ABC, abstractmethod

from langevin.errors import OptionError


class LRSchedule(ABC):
    """A factor on the optimizer's learning rate."""

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
