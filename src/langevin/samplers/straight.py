"""The coordinates in which a sampler's paths are straight."""

import torch
from torch import Tensor

from langevin.diffusion.level import combine
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule


class StraightLines:
    """The probability-flow ODE in the variables ``z = x_t / n``, ``tau = sigma / n``, with ``n = alpha + k sigma``.

    For any k, ``z = (1 - k tau) x + tau eps`` and ``dz / dtau = eps - k x``: while the prediction (x, eps) stays, a
    path is a straight line, and solvers differ only in how they follow its bends. Euler's method is DDIM for every k.

    k = 0 gives x_t / alpha over sigma / alpha, the coordinates of EDM (Karras et al. 2022, section 3) and k-diffusion.
    They reach infinity where a schedule ends without signal, as flow matching and zero terminal SNR do; there k = 1,
    whose tau = sigma / (alpha + sigma) runs from 0 to 1. On flow matching's own schedule that is x_t over t.

    Args:
        schedule: how noise grows with time.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.k = 1 if schedule(torch.tensor(schedule.t_max, dtype=torch.float64)).alpha == 0 else 0

    def scale(self, t: Tensor) -> Tensor:
        """The n of the time `t`: float64 of the shape of `t`."""
        alpha, sigma = self.schedule(t)
        return alpha + self.k * sigma

    def tau(self, t: Tensor) -> Tensor:
        """The tau of the time `t`: float64 of the shape of `t`."""
        return self.schedule(t).sigma / self.scale(t)

    def slope(self, prediction: Prediction) -> Tensor:
        """``dz / dtau``, (B, C, H, W)."""
        return prediction.eps - prediction.x if self.k else prediction.eps

    def move(self, x_t: Tensor, slope: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The images (B, C, H, W) at the time `s`, along a line from `x_t` at the time `t`."""
        scale = self.scale(s)
        return combine(scale / self.scale(t), x_t, scale * (self.tau(s) - self.tau(t)), slope)
