"""The variance-preserving SDE's schedule."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.curve import CurveSchedule
from langevin.diffusion.schedules.schedule import VariancePreserving
from langevin.errors import OptionError


class VP(VariancePreserving, CurveSchedule):
    """beta rises linearly in continuous time: ``log alpha = -u^2 (beta_max - beta_min) / 4 - u beta_min / 2``.

    Source: Score-SDE (Song et al. 2021), equation 33.

    Args:
        num_steps: T; None for continuous time.
        beta_min: beta at the data.
        beta_max: beta in the end.

    Raises:
        UserError: when beta falls.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
        beta_min: Annotated[float, Gt(0)] = 0.1,
        beta_max: Annotated[float, Gt(0)] = 20.0,
    ) -> None:
        if beta_max < beta_min:
            raise OptionError("beta_max", f"is {beta_max}; allowed: at least beta_min ({beta_min})")
        super().__init__(num_steps)
        self.beta_min, self.beta_max = beta_min, beta_max

    def curve(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        log_alpha = -u * (u * (self.beta_max - self.beta_min) / 4 + self.beta_min / 2)
        return Level(torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha)))

    def curve_rate(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        half_beta = (self.beta_min + u * (self.beta_max - self.beta_min)) / 2
        alpha, sigma = self.curve(u)
        return Level(-half_beta * alpha, half_beta * alpha.square() / sigma)

    def curve_inverse(self, ratio: Tensor) -> Tensor:
        """See `CurveSchedule`."""
        minus_log_alpha = 0.5 * torch.log1p(ratio.square())
        # The root of a quadratic, written so that no digits cancel where beta hardly rises.
        difference = self.beta_max - self.beta_min
        return 4 * minus_log_alpha / (self.beta_min + torch.sqrt(self.beta_min**2 + 4 * difference * minus_log_alpha))
