"""Schedules that are a curve over [0, 1], taken continuously or in T steps."""

from abc import abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import SMALLEST_TIME, Schedule, VariancePreserving


class CurveSchedule(Schedule):
    """A curve of levels over u in [0, 1]; its clock is u itself, or ``u = t / T`` for T discrete steps.

    Args:
        num_steps: T, at least 1; None for continuous time.
    """

    def __init__(self, num_steps: int | None) -> None:
        self.num_steps = num_steps
        self.t_max = 1.0 if num_steps is None else float(num_steps)
        self.t_min = SMALLEST_TIME if num_steps is None else 1.0

    @abstractmethod
    def curve(self, u: Tensor) -> Level:
        """The level at `u` in [0, 1]."""

    @abstractmethod
    def curve_rate(self, u: Tensor) -> Level:
        """The derivative of alpha and sigma by u, at `u` in (0, 1]."""

    @abstractmethod
    def curve_inverse(self, ratio: Tensor) -> Tensor:
        """Where ``sigma / alpha`` is `ratio`; anything beyond [0, 1], or nan there, for a ratio beyond the ends."""

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        return self.curve(t / self.t_max)

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        alpha, sigma = self.curve_rate(t / self.t_max)
        return Level(alpha / self.t_max, sigma / self.t_max)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        least, most = (self(t).ratio for t in torch.tensor([0.0, self.t_max], dtype=torch.float64))
        u = self.curve_inverse(ratio.clamp(least, most)).clamp(0, 1)
        u = torch.where(ratio <= least, 0.0, torch.where(ratio >= most, 1.0, u))
        return self.t_max * u


class GammaSchedule(VariancePreserving, CurveSchedule):
    """A variance-preserving schedule given by the shape of ``gamma = alpha^2``.

    ``gamma(u) = (f(1) - f(u)) / (f(1) - f(0))``, which falls from 1 to 0. A trace of signal is kept at the end by
    ``gamma_min + (1 - gamma_min) gamma(u)``; the source clips at that value, which cannot be inverted.
    Source: Chen 2023 (arXiv 2301.10972), algorithm 1.

    Args:
        num_steps: T; None for continuous time.
        gamma_min: gamma at the end, in [0, 1).
    """

    def __init__(self, num_steps: int | None, gamma_min: float) -> None:
        super().__init__(num_steps)
        self.gamma_min = gamma_min
        self._first, self._last = self.shape(torch.tensor([0.0, 1.0], dtype=torch.float64))

    @abstractmethod
    def shape(self, u: Tensor) -> Tensor:
        """The function f, monotone on [0, 1]."""

    @abstractmethod
    def shape_rate(self, u: Tensor) -> Tensor:
        """Its derivative."""

    @abstractmethod
    def shape_inverse(self, f: Tensor) -> Tensor:
        """Its inverse."""

    def curve(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        f, extent = self.shape(u), self._last - self._first
        gamma = self.gamma_min + (1 - self.gamma_min) * (self._last - f) / extent
        return Level(torch.sqrt(gamma), torch.sqrt((1 - self.gamma_min) * (f - self._first) / extent))

    def curve_rate(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        alpha, sigma = self.curve(u)
        rate = -(1 - self.gamma_min) * self.shape_rate(u) / (self._last - self._first)
        return Level(rate / (2 * alpha), -rate / (2 * sigma))

    def curve_inverse(self, ratio: Tensor) -> Tensor:
        """See `CurveSchedule`."""
        noise = 1 / (1 + ratio**-2)
        f = self._first + noise / (1 - self.gamma_min) * (self._last - self._first)
        return self.shape_inverse(f)


class LogSNRSchedule(VariancePreserving, CurveSchedule):
    """A variance-preserving schedule given by its logSNR, which falls from `log_snr_max` to `log_snr_min`.

    At u = 0 a little noise is left, ``sigma^2 = 1 / (1 + exp(log_snr_max))``.
    """

    @abstractmethod
    def log_snr(self, u: Tensor) -> Tensor:
        """``log(alpha^2 / sigma^2)`` at `u`."""

    @abstractmethod
    def log_snr_rate(self, u: Tensor) -> Tensor:
        """Its derivative."""

    @abstractmethod
    def log_snr_inverse(self, log_snr: Tensor) -> Tensor:
        """Its inverse."""

    def curve(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        log_snr = self.log_snr(u)
        return Level(torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt())

    def curve_rate(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        (alpha, sigma), rate = self.curve(u), self.log_snr_rate(u) / 2
        return Level(rate * alpha * sigma.square(), -rate * sigma * alpha.square())

    def curve_inverse(self, ratio: Tensor) -> Tensor:
        """See `CurveSchedule`."""
        return self.log_snr_inverse(-2 * torch.log(ratio))
