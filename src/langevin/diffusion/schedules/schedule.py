"""What every noise schedule is."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.errors import UserError


class Schedule(ABC):
    """A noise schedule: ``x_t = alpha(t) x + sigma(t) eps``, with t = 0 at the data and noise growing with t.

    A schedule owns its clock: times run from 0 to `t_max`. Times are float64 tensors on the CPU of any shape, and so
    is all that is computed from them (`langevin.diffusion.level.like` says why).

    Attributes:
        t_max: the time of most noise.
        num_steps: the number T of discrete times {1, ..., T} the model is trained at; None for continuous time.
    """

    t_max: float
    num_steps: int | None

    @abstractmethod
    def __call__(self, t: Tensor) -> Level:
        """The level at the times `t` in [0, t_max]."""

    @abstractmethod
    def rate(self, t: Tensor) -> Level:
        """The derivative of alpha and sigma by t, at the times `t` in (0, t_max]."""

    @abstractmethod
    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which ``sigma / alpha`` is `ratio`: the inverse of the schedule."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """The standard deviation of the noise that sampling starts from at `t_max`."""

    def clock(self, t: Tensor) -> Tensor:
        """The time on the scale 0..1000 that time embeddings were designed for.

        With discrete times this is ``(t - 1) * 1000 / T``, so that DDPM's networks (T = 1000) see their own index
        0..999; otherwise ``1000 * t / t_max``.
        """
        if self.num_steps is None:
            return 1000 * t / self.t_max
        return (t - 1) * (1000 / self.num_steps)


class BetaSchedule(Schedule):
    """A variance-preserving schedule made of T discrete steps: ``alpha_t^2 = prod_{i <= t} (1 - beta_i)``.

    Its clock is {0, 1, ..., T}. Between the integers log alpha is linear, that is, beta is constant within a step, so
    the schedule is also defined, increasing and invertible at every real time in [0, T]. Source: DDPM (Ho et al.
    2020), section 2, where step t here is the paper's t.

    Args:
        betas: beta_1..beta_T in (0, 1), float64, shape (T,).

    Raises:
        UserError: when a beta leaves (0, 1).
    """

    prior_std = 1.0

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
        """See `Schedule`; a ratio beyond the noisiest level gives `t_max`."""
        log_alpha = -0.5 * torch.log1p(ratio.square())
        # _log_alpha falls; searchsorted wants it rising.
        step = (torch.searchsorted(-self._log_alpha, -log_alpha.contiguous()) - 1).clamp(0, self.num_steps - 1)
        low, high = self._log_alpha[step], self._log_alpha[step + 1]
        return (step + (low - log_alpha) / (low - high)).clamp(0, self.t_max)
