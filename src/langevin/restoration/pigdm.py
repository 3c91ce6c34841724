"""Pseudo-inverse guidance."""

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.restoration.restoration import Correction, Measurement, differentiable, says_nothing


class PiGDM(Correction):
    """Moves the score by that of y, if the sample given x_t were normal around the prediction: one gradient a step.

    ``d = sigma^2 / alpha J^T A^T (r^2 A A^T + sigma_y^2)^-1 (y - A x)`` with ``J = dx/dx_t`` and
    ``r^2 = sigma^2 v / (sigma^2 + alpha^2 v)``, the variance of a sample given x_t where the data's own is v. Where
    ``sigma / alpha > 20``, so that x_t says next to nothing, ``sigma^2 / alpha J`` is taken to be r^2. Source:
    Pseudoinverse-guided diffusion models (Song et al. 2023), equations 7 and 8, as a score.

    Args:
        variance: v, of the data, in the model's units; 1 in the source.
    """

    is_exact = True
    needs_gradient = True

    def __init__(self, variance: Annotated[float, Gt(0)] = 1.0) -> None:
        self.variance = variance

    def correct(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        cond: Condition | None,
        measurement: Measurement,
        times: Tensor,
    ) -> tuple[Prediction, Tensor]:
        """See `Correction`."""
        level = denoise.process.schedule(t)
        prediction, at, x = differentiable(denoise, x_t, t, cond)
        alpha, sigma = level
        spread = sigma.square() * self.variance / (sigma.square() + alpha.square() * self.variance)
        operator, shape = measurement.operator, measurement.shape
        residual = measurement.residual(prediction.x)
        weighted = operator.solve(residual, shape, spread, measurement.noise**2)
        pulled = operator.adjoint(weighted, shape)
        if says_nothing(level):
            return prediction, broadcast_to(spread, x_t) * pulled
        (pulled,) = torch.autograd.grad(x, at, pulled)
        return prediction, broadcast_to(sigma.square() / alpha, x_t) * pulled
