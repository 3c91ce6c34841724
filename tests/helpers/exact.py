"""Data whose denoiser is known exactly, and how fast a sampler's error falls on it."""

import math

import torch
from torch import Tensor

from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction, eps_from_x


class Mixture:
    """The exact denoiser of a mixture of Gaussians in each pixel by itself: E[x | x_t], float64.

    One component is a Gaussian, whose probability-flow ODE has a closed solution (`gaussian_flow`).
    """

    def __init__(self, schedule, means=(-0.6, 0.5), stds=(0.2, 0.3), weights=(0.4, 0.6), variance=None) -> None:
        self.schedule = schedule
        self.process = GaussianProcess(schedule, Eps(), variance)
        self.means, self.stds, self.weights = (torch.tensor(v, dtype=torch.float64) for v in (means, stds, weights))
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor, cond=None) -> Prediction:
        self.calls += 1
        # One time for all, or one per image.
        alpha, sigma = (coefficient.to(x_t.dtype).reshape(-1, *[1] * x_t.ndim) for coefficient in self.schedule(t))
        total = alpha**2 * self.stds**2 + sigma**2
        gap = x_t[..., None] - alpha * self.means
        odds = torch.softmax(torch.log(self.weights) - gap**2 / (2 * total) - torch.log(total) / 2, -1)
        x = (odds * (self.means + alpha * self.stds**2 / total * gap)).sum(-1)
        eps = eps_from_x(x, x_t, self.schedule(t))
        return Prediction(x, eps, eps, None)

    @property
    def mean(self) -> float:
        return float((self.weights * self.means).sum())

    @property
    def std(self) -> float:
        return math.sqrt(float((self.weights * (self.stds**2 + self.means**2)).sum()) - self.mean**2)


def gaussian(schedule, mean=0.3, std=0.4, variance=None) -> Mixture:
    return Mixture(schedule, (mean,), (std,), (1.0,), variance)


def gaussian_flow(schedule, x_t: Tensor, t: Tensor, s: Tensor, mean=0.3, std=0.4) -> Tensor:
    """Where the probability-flow ODE of data N(mean, std^2) takes `x_t` from time t to time s."""
    (a, b), (c, d) = schedule(t), schedule(s)
    return c * mean + torch.sqrt((c**2 * std**2 + d**2) / (a**2 * std**2 + b**2)) * (x_t - a * mean)


def slope(errors: dict[int, float]) -> float:
    """The order of convergence: minus the slope of log error over log steps, by least squares."""
    steps = torch.log(torch.tensor(list(errors), dtype=torch.float64))
    error = torch.log(torch.tensor(list(errors.values()), dtype=torch.float64))
    steps, error = steps - steps.mean(), error - error.mean()
    return -float((steps * error).sum() / (steps**2).sum())
