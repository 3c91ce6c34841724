"""Moment matching posterior sampling."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.restoration.gmres import gmres
from langevin.restoration.restoration import Correction, Measurement, differentiable, says_nothing


class MMPS(Correction):
    """Moves the score by that of y, with the covariance of a sample given x_t that the model itself implies.

    ``d = V A^T (A V A^T + sigma_y^2)^-1 (y - A x)`` with ``V = sigma^2 / alpha dx/dx_t``, which is that covariance
    (Tweedie's second formula). The inverse is by GMRES, an evaluation's gradient each, and one more. Exact, but for the
    sampler's steps, where the data are normal; where ``sigma / alpha > 20``, so that x_t says next to nothing, V is
    taken to be the identity. Source: Rozet et al. 2024 (arXiv 2405.13712), equations 16 to 18.

    Args:
        iterations: of GMRES; as many as there are measured numbers make it exact.
    """

    is_exact = True
    needs_gradient = True

    def __init__(self, iterations: Annotated[int, Ge(1)] = 3) -> None:
        self.iterations = iterations

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
        prediction, at, x = differentiable(denoise, x_t, t, cond)
        level = denoise.process.schedule(t)
        operator, shape, residual = measurement.operator, measurement.shape, measurement.residual(prediction.x)
        if says_nothing(level):
            return prediction, operator.adjoint(operator.solve(residual, shape, 1.0, measurement.noise**2), shape)
        scale = broadcast_to(level.sigma.square() / level.alpha, x_t)

        def covariance(v: Tensor) -> Tensor:
            return scale * torch.autograd.grad(x, at, v, retain_graph=True)[0]

        def of_measurement(u: Tensor) -> Tensor:
            return operator(covariance(operator.adjoint(u, shape))) + measurement.noise**2 * u

        weighted = gmres(of_measurement, residual, self.iterations)
        return prediction, covariance(operator.adjoint(weighted, shape))
