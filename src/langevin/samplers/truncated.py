"""Sampling that stops while samples are noisy, which the next model of a cascade is given so."""

import math
from typing import Any

import torch
from torch import Tensor

from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.restoration.walk import Walk

EXACT = 1e-6
"""Of a step: how far a time may be below a whole one that it is taken for."""


class Truncated(Walk):
    """A sampler's own way from noise down to a level of it, at which it stops.

    Of the two kinds of conditioning augmentation in Ho et al. 2022, "Cascaded diffusion models" (arXiv 2106.15282),
    section 4.2, the truncated one: for an exact model the noisy samples at level s have the law of data to which noise
    of level s is added.

    Args:
        schedule: the model's.
        own: the sampler's times, float64 (steps + 1,).
        level: of the noise, ``s = sigma / sqrt(alpha^2 + sigma^2)``, in (0, 1).

    Attributes:
        level: where it stops; of a schedule with steps that of the last whole one which is at most as noisy.

    Raises:
        UserError: when the sampler does not come by that level.
    """

    def __init__(self, schedule: Schedule, own: Tensor, level: float) -> None:
        ratio = torch.tensor(level / math.sqrt(1 - level**2) if level < 1 else math.inf, dtype=torch.float64)
        t = schedule.time_of(ratio)
        self.time = t if schedule.num_steps is None else torch.floor(t + EXACT)
        least = schedule.t_min if schedule.num_steps is None else 1.0
        if not least <= self.time < own[0]:
            lowest, highest = (level_at(schedule, torch.as_tensor(each).double()) for each in (least, own[0]))
            raise UserError(f"allowed: {lowest:.3g} to below {highest:.3g}, where the model is asked")
        self.level = level_at(schedule, self.time)
        at, data = schedule(self.time), schedule(torch.zeros_like(self.time))
        self._scale = float(data.alpha / torch.hypot(at.alpha, at.sigma))

    def times(self, own: Tensor) -> Tensor:
        """See `Walk`: those of the sampler before it stops, and where it does."""
        return torch.cat([own[own > self.time], self.time[None]])

    def standard(self, finished: Tensor) -> Tensor:
        """What a sampler hands back, ``x_s`` over the data's alpha (B, ...), as ``sqrt(1 - s^2) x + s eps``."""
        return finished * self._scale

    def record(self) -> dict[str, Any]:
        """Where it stops, as plain values for a protocol."""
        return {"truncated": self.level}


def level_at(schedule: Schedule, t: Tensor) -> float:
    """The noise's share of the standard deviation at a time ()."""
    alpha, sigma = schedule(t)
    return float(sigma / torch.hypot(alpha, sigma))
