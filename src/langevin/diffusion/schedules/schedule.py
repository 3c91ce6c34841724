"""What every noise schedule is."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.level import Level

SMALLEST_TIME = 1e-5
"""Where continuous time on [0, 1] begins to be trained and sampled at. Source: Score-SDE (Song et al. 2021), app. C."""


class Schedule(ABC):
    """A noise schedule: ``x_t = alpha(t) x + sigma(t) eps``, with t = 0 at the data and noise growing with t.

    A schedule owns its clock: times run from 0 to `t_max`. Times are float64 tensors on the CPU of any shape, and so
    is all that is computed from them (for the reason, see `langevin.diffusion.level.broadcast_to`).

    Attributes:
        t_max: the time of most noise.
        t_min: the time of least noise that a model is asked at; below it lies only the data, at t = 0.
        num_steps: the number T of discrete times {1, ..., T} the model is trained at; None for continuous time.
    """

    t_max: float
    t_min: float
    num_steps: int | None

    @abstractmethod
    def __call__(self, t: Tensor) -> Level:
        """The level at the times `t` in [0, t_max]."""

    @abstractmethod
    def rate(self, t: Tensor) -> Level:
        """The derivative of alpha and sigma by t, at the times `t` in (0, t_max]."""

    @abstractmethod
    def time_of(self, ratio: Tensor) -> Tensor:
        """The time at which ``sigma / alpha`` is `ratio`: the inverse of the schedule.

        A ratio beyond an end of the schedule gives that end, 0 or `t_max`.
        """

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """The standard deviation of the noise that sampling starts from at `t_max`."""

    @abstractmethod
    def norm(self, level: Level) -> Tensor:
        """What the schedule's kind keeps at 1, as a function of (alpha, sigma) that is linear in their common scale."""

    @abstractmethod
    def tangent(self, level: Level) -> Level:
        """The direction (alpha', sigma') in which noise grows while `norm` is kept."""

    def clock(self, t: Tensor) -> Tensor:
        """The time on the scale 0..1000 that time embeddings were designed for.

        With discrete times this is ``(t - 1) * 1000 / T``, so that DDPM's networks (T = 1000) receive their own index
        0..999; otherwise ``1000 * t / t_max``.
        """
        if self.num_steps is None:
            return 1000 * t / self.t_max
        return (t - 1) * (1000 / self.num_steps)


class VariancePreserving(Schedule):
    """``alpha^2 + sigma^2 = 1``: data of unit variance keep it."""

    @property
    def prior_std(self) -> float:
        """1."""
        return 1.0

    def norm(self, level: Level) -> Tensor:
        """``sqrt(alpha^2 + sigma^2)``."""
        return torch.hypot(level.alpha, level.sigma)

    def tangent(self, level: Level) -> Level:
        """``(-sigma, alpha)``."""
        return Level(-level.sigma, level.alpha)


class VarianceExploding(Schedule):
    """``alpha = 1``: noise is added and the signal is not scaled."""

    @property
    def prior_std(self) -> float:
        """The last sigma, beside which the data is small."""
        return float(self(torch.tensor(self.t_max, dtype=torch.float64)).sigma)

    def norm(self, level: Level) -> Tensor:
        """``alpha``."""
        return level.alpha

    def tangent(self, level: Level) -> Level:
        """``(0, 1)``."""
        return Level(torch.zeros_like(level.alpha), torch.ones_like(level.alpha))
