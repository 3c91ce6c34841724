"""Diffusion posterior sampling."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.restoration.restoration import Measurement, Restoration, Steered, differentiable
from langevin.restoration.walk import Walk


class DPS(Restoration):
    """After each step goes down the gradient of the distance to the measurement: ``x_s - zeta d|y - A x| / dx_t``.

    The norm is that of each sample; the source's code takes one over the batch. What the step length means depends on
    the number of steps: the source takes 1000 ancestral ones. Where the samples' own scale varies with time, the step
    is that of ``x_t / sqrt(alpha^2 + sigma^2)``. In latents the distance is that of the decoded prediction. Source:
    DPS (Chung et al. 2023, arXiv 2209.14687), algorithm 1 and appendix D.

    Args:
        zeta: the step length; the source has 0.3 to 1.
    """

    walks = True
    needs_gradient = True
    in_latents = True

    def __init__(self, zeta: Annotated[float, Ge(0)] = 0.3) -> None:
        self.zeta = zeta

    def __call__(
        self, denoise: Denoise, measurement: Measurement, times: Tensor, draws: Draws
    ) -> tuple[Denoise, Walk | None]:
        """See `Restoration`."""
        descent = _Descent(self.zeta, denoise.process.schedule)

        def steer(x_t: Tensor, t: Tensor, cond: Condition | None) -> Prediction:
            prediction, at, x = differentiable(denoise, x_t, t, cond)
            with torch.enable_grad():
                distance = torch.linalg.vector_norm(measurement.residual(x).flatten(1), dim=1).sum()
            (descent.gradient,) = torch.autograd.grad(distance, at)
            return prediction

        return Steered(denoise.process, steer), descent


class _Descent(Walk):
    """A step along the last evaluation's gradient, after each step of the sampler.

    Attributes:
        gradient: of each sample's distance by x_t, (B, ...).
    """

    gradient: Tensor

    def __init__(self, zeta: float, schedule: Schedule) -> None:
        self.zeta = zeta
        self.schedule = schedule

    def after(self, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Walk`."""
        units = [torch.hypot(*self.schedule(time)) for time in (t, s)]
        return x_s - broadcast_to(self.zeta * units[0] * units[1], x_s) * self.gradient
