"""A correlated Gaussian: its exact denoiser, and its exact posterior given a linear measurement, all in float64."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules.schedule import Schedule

MEAN = torch.tensor([0.3, -0.2, 0.1, -0.4], dtype=torch.float64)
"""Of four numbers, such as the pixels of an image (1, 2, 2)."""
COV = torch.tensor(
    [[0.25, 0.16, 0.12, 0.05], [0.16, 0.30, 0.08, 0.14], [0.12, 0.08, 0.20, 0.09], [0.05, 0.14, 0.09, 0.35]],
    dtype=torch.float64,
)
"""Their covariance: correlations of 0.2 to 0.6."""


class CorrelatedGaussian:
    """The exact denoiser E[x | x_t] of x ~ N(mean, cov), for samples (B, *shape) of D numbers.

    ``x = mean + alpha cov (alpha^2 cov + sigma^2 I)^-1 (x_t - alpha mean)``, computed in float64 and returned in the
    type of `x_t`; its derivative by x_t is exact. One time for all, or one per sample.

    Args:
        schedule: how noise grows.
        mean: (D,).
        cov: (D, D), positive definite.
    """

    def __init__(self, schedule: Schedule, mean: Tensor = MEAN, cov: Tensor = COV) -> None:
        self.schedule, self.process = schedule, GaussianProcess(schedule, Eps())
        self.mean = mean
        self.variances, self.axes = torch.linalg.eigh(cov)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """See `Denoiser.forward`."""
        flat = x_t.flatten(1).double()
        alpha, sigma = (broadcast_to(coefficient, flat) for coefficient in self.schedule(t))
        gap = (flat - alpha * self.mean) @ self.axes / (alpha**2 * self.variances + sigma**2)
        x = self.mean + (alpha * self.variances * gap) @ self.axes.T
        eps = (sigma * gap) @ self.axes.T
        x, eps = (each.to(x_t.dtype).reshape(x_t.shape) for each in (x, eps))
        return Prediction(x, eps, eps, None)


def posterior(mean: Tensor, cov: Tensor, A: Tensor, y: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """The mean and the covariance of x ~ N(mean, cov) given ``y = A x + n``, n ~ N(0, noise I).

    Args:
        mean: (D,).
        cov: (D, D).
        A: (M, D), see `matrix_of`; rows may be zero or depend on others.
        y: (M,), or (N, M) of which each has a mean.
        noise: the variance of each number of n; 0 gives the limit of no noise.

    Returns:
        (D,) or (N, D), and (D, D), float64.
    """
    mean, cov, A, y = (each.detach().double().numpy() for each in (mean, cov, A, y))
    gain = cov @ A.T @ np.linalg.pinv(A @ cov @ A.T + noise * np.eye(len(A)), rcond=1e-12, hermitian=True)
    return torch.from_numpy(mean + (y - mean @ A.T) @ gain.T), torch.from_numpy(cov - gain @ A @ cov)


def matrix_of(operator: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
    """The dense matrix (M, D) of a linear map of samples (B, *shape), float64: its values on the unit vectors."""
    size = int(np.prod(shape))
    return operator(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1).T
