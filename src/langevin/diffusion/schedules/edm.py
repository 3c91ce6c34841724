"""EDM's schedule."""

import math
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import VarianceExploding
from langevin.errors import OptionError


class EDMSchedule(VarianceExploding):
    """alpha is 1 and the time is sigma itself. Source: EDM (Karras et al. 2022), table 1.

    Args:
        sigma_min: the least noise that sampling visits.
        sigma_max: the most, where sampling begins.

    Raises:
        UserError: when `sigma_max` is not above `sigma_min`.
    """

    num_steps = None

    def __init__(self, sigma_min: Annotated[float, Gt(0)] = 0.002, sigma_max: Annotated[float, Gt(0)] = 80.0) -> None:
        if sigma_max <= sigma_min:
            raise OptionError("sigma_max", f"is {sigma_max}; allowed: above sigma_min ({sigma_min})")
        self.t_min, self.t_max = sigma_min, sigma_max

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        return Level(torch.ones_like(t), t)

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        return Level(torch.zeros_like(t), torch.ones_like(t))

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        return ratio.clamp(0, self.t_max)

    def clock(self, t: Tensor) -> Tensor:
        """See `Schedule`; sigma spans orders of magnitude, so that its logarithm runs from 0 to 1000."""
        return 1000 * torch.log(t / self.t_min) / math.log(self.t_max / self.t_min)
