"""Less signal in the same noise."""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped


class InputScaling(Wrapped):
    """Images are multiplied by b before noise is added: alpha becomes b alpha, which shifts logSNR by 2 log b.

    The network's input still has unit variance (`Parameterization.c_in`). Source: Chen 2023 (arXiv 2301.10972),
    section 2.3.

    Args:
        schedule: the schedule without it.
        b: the factor; below 1, more of the image is lost at every time.
    """

    def __init__(self, schedule: Schedule, b: Annotated[float, Gt(0)] = 0.5) -> None:
        super().__init__(schedule)
        self.b = b

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        alpha, sigma = self.schedule(t)
        return Level(self.b * alpha, sigma)

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        alpha, sigma = self.schedule.rate(t)
        return Level(self.b * alpha, sigma)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        return self.schedule.time_of(self.b * ratio)

    def norm(self, level: Level) -> Tensor:
        """See `Schedule`."""
        return self.schedule.norm(Level(level.alpha / self.b, level.sigma))

    def tangent(self, level: Level) -> Level:
        """See `Schedule`."""
        alpha, sigma = self.schedule.tangent(Level(level.alpha / self.b, level.sigma))
        return Level(self.b * alpha, sigma)
