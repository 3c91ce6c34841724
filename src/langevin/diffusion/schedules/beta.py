"""Schedules that are made of steps."""

import torch
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import VariancePreserving
from langevin.errors import UserError


class BetaSchedule(VariancePreserving):
    """A variance-preserving schedule made of T discrete steps: ``alpha_t^2 = prod_{i <= t} (1 - beta_i)``.

    Its clock is {0, 1, ..., T}. Between the integers log alpha is linear, that is, beta is constant within a step, so
    the schedule is also defined, increasing and invertible at every real time in [0, T]. Source: DDPM (Ho et al.
    2020), section 2, where step t here is the paper's t.

    Args:
        betas: beta_1..beta_T in (0, 1), float64, shape (T,).

    Raises:
        UserError: when a beta leaves (0, 1).
    """

    t_min = 1.0

    def __init__(self, betas: Tensor) -> None:
        if not bool(((betas > 0) & (betas < 1)).all()):
            raise UserError(
                f"betas must lie strictly between 0 and 1, but run from {float(betas.min()):.4g} to "
                f"{float(betas.max()):.4g}: take more steps or smaller betas"
            )
        self.num_steps: int = len(betas)
        self.t_max = float(len(betas))
        self.betas = betas
        log_alpha = 0.5 * torch.log1p(-betas.double()).cumsum(0)
        self._log_alpha = torch.cat([log_alpha.new_zeros(1), log_alpha])

    def _segment(self, t: Tensor) -> Tensor:
        """The index of the step that leads up to t: i for t in (i, i + 1]."""
        return (torch.ceil(t) - 1).clamp(0, self.num_steps - 1).long()

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        step = self._segment(t)
        low, high = self._log_alpha[step], self._log_alpha[step + 1]
        # At t = step + 1 this is the tabulated value to the last bit.
        log_alpha = high + (low - high) * (step + 1 - t)
        return Level(torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha)))

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`; at an integer time, the derivative from below."""
        step = self._segment(t)
        slope = self._log_alpha[step + 1] - self._log_alpha[step]
        alpha, sigma = self(t)
        return Level(slope * alpha, -slope * alpha.square() / sigma)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        log_alpha = -0.5 * torch.log1p(ratio.square())
        # _log_alpha falls; searchsorted wants it rising.
        step = (torch.searchsorted(-self._log_alpha, -log_alpha.contiguous()) - 1).clamp(0, self.num_steps - 1)
        low, high = self._log_alpha[step], self._log_alpha[step + 1]
        return (step + (low - log_alpha) / (low - high)).clamp(0, self.t_max)
