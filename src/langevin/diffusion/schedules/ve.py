"""The variance-exploding SDE's schedule."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import SMALLEST_TIME, VarianceExploding
from langevin.errors import OptionError


class VE(VarianceExploding):
    """alpha is 1 and sigma grows geometrically from `sigma_min` to `sigma_max`; at t = 0 itself there is no noise.

    Source: Score-SDE (Song et al. 2021), equation 30; with discrete steps, ``sigma_1 = sigma_min`` and
    ``sigma_T = sigma_max`` as in its appendix C.

    Args:
        num_steps: T; None for continuous time.
        sigma_min: the least noise.
        sigma_max: the most; the source takes the largest distance between two images.

    Raises:
        UserError: when `sigma_max` is not above `sigma_min`.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(2), Le(1_000_000)] | None = None,
        sigma_min: Annotated[float, Gt(0)] = 0.01,
        sigma_max: Annotated[float, Gt(0)] = 50.0,
    ) -> None:
        if sigma_max <= sigma_min:
            raise OptionError("sigma_max", f"is {sigma_max}; allowed: above sigma_min ({sigma_min})")
        self.num_steps = num_steps
        self.t_max = 1.0 if num_steps is None else float(num_steps)
        self.t_min = SMALLEST_TIME if num_steps is None else 1.0
        self._log_min = math.log(sigma_min)
        # log sigma is linear in t; it reaches sigma_min at `_start`.
        self._start = 0.0 if num_steps is None else 1.0
        self._slope = math.log(sigma_max / sigma_min) / (self.t_max - self._start)

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        sigma = torch.exp(self._log_min + self._slope * (t - self._start))
        return Level(torch.ones_like(t), torch.where(t > 0, sigma, 0.0))

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        return Level(torch.zeros_like(t), self._slope * self(t).sigma)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        return (self._start + (torch.log(ratio) - self._log_min) / self._slope).clamp(0, self.t_max)
