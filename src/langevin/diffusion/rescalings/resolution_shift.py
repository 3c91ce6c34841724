"""More noise for larger images."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped


class ResolutionShift(Wrapped):
    """``sigma / alpha`` grows by d / d_0 at every time, so that logSNR falls by ``2 log(d / d_0)``.

    Neighbouring pixels of a larger image are redundant, so that the same noise hides less of it. What the schedule
    keeps constant stays so: ``alpha^2 + sigma^2``, alpha, or alpha + sigma, as the case may be (in the last it is
    Stable Diffusion 3's shift). Source: simple diffusion (Hoogeboom et al. 2023), equation 3.

    Args:
        schedule: the schedule without it.
        image_size: d, the side of an image in pixels.
        reference_size: d_0, the side that the schedule was made for.
    """

    def __init__(self, schedule: Schedule, image_size: int, reference_size: Annotated[int, Ge(1)] = 64) -> None:
        super().__init__(schedule)
        self.factor = image_size / reference_size

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        alpha, sigma = self.schedule(t)
        norm = self.schedule.norm(Level(alpha, self.factor * sigma))
        return Level(alpha / norm, self.factor * sigma / norm)

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        (alpha, sigma), rate, level = self.schedule(t), self.schedule.rate(t), self(t)
        norm = self.schedule.norm(Level(alpha, self.factor * sigma))
        # The area alpha dsigma - sigma dalpha that is swept grows by factor / norm^2, and must be swept along the
        # tangent.
        swept = (alpha * rate.sigma - sigma * rate.alpha) * self.factor / norm.square()
        direction = self.schedule.tangent(level)
        speed = swept / (level.alpha * direction.sigma - level.sigma * direction.alpha)
        return Level(speed * direction.alpha, speed * direction.sigma)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        return self.schedule.time_of(ratio / self.factor)

    @property
    def prior_std(self) -> float:
        """See `Schedule`; it grows where the schedule sets no bound to noise."""
        noise = Level(*torch.tensor([0.0, 1.0], dtype=torch.float64))
        return self.schedule.prior_std * (1 if self.schedule.norm(noise) > 0 else self.factor)
