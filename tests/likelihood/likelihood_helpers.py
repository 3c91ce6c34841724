"""Pixels of bytes whose probability is known, the models that know it, and noise that integrates instead of drawing."""

import math

import numpy as np
import torch
from helpers.draws import Given
from scipy.stats import norm

from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction, eps_from_x
from langevin.diffusion.variance import FixedSmall

LEVELS = np.arange(256) / 127.5 - 1


def gaussian_bytes(mean, std, least=1e-7):
    """The values that a pixel of N(mean, std^2) may have once it is rounded to a byte, and their probabilities.

    Values less probable than `least` are left out, so that there are few.
    """
    edges = np.concatenate([[-np.inf], (LEVELS[1:] + LEVELS[:-1]) / 2, [np.inf]])
    probabilities = np.diff(norm.cdf(edges, mean, std))
    kept = probabilities > least
    return LEVELS[kept], probabilities[kept] / probabilities[kept].sum()


class Bytes:
    """The exact denoiser of a pixel that has one of some values: E[x | x_t], float64."""

    def __init__(self, schedule, values, probabilities):
        self.schedule, self.process = schedule, GaussianProcess(schedule, Eps())
        self.values, self.log_probabilities = torch.from_numpy(values), torch.from_numpy(np.log(probabilities))

    def __call__(self, x_t, t, cond=None):
        level = self.schedule(t)
        alpha, sigma = (coefficient.reshape(-1, *[1] * x_t.ndim) for coefficient in level)
        gap = (x_t[..., None] - alpha * self.values) / sigma
        x = (torch.softmax(self.log_probabilities - gap.square() / 2, -1) * self.values).sum(-1)
        eps = eps_from_x(x, x_t, level)
        return Prediction(x, eps, eps, None)


class GaussianVariance(FixedSmall):
    """The true variance of x_s given x_t for data of N(., std^2)."""

    def __init__(self, std):
        self.std = std

    def log_variance(self, output, schedule, s, t):
        (a_s, sigma_s), (a_t, sigma_t) = schedule(s), schedule(t)
        at_s, at_t = a_s**2 * self.std**2 + sigma_s**2, a_t**2 * self.std**2 + sigma_t**2
        return torch.log(at_s - (a_t / a_s * at_s) ** 2 / at_t)


class Nodes(Given):
    """Images of one pixel: each of some values with each node of a trapezoidal rule over the normal distribution.

    As a noise source it gives every image its node at every call; or, with `places`, at every other call, and in
    between 0, which is the middle of a stratum: so an expectation over noise and time becomes a sum.
    """

    def __init__(self, values, places=False, spacing=0.2, furthest=6.6):
        super().__init__(self)
        nodes = np.arange(-furthest, furthest + spacing / 2, spacing)
        self.values, self.weights = values, norm.pdf(nodes) * spacing
        self.x = torch.from_numpy(np.repeat(values, len(nodes))).reshape(-1, 1, 1, 1)
        self.eps = torch.from_numpy(np.tile(nodes, len(values))).reshape(-1, 1, 1, 1)
        self.places, self.calls = places, 0

    def __call__(self):
        self.calls += 1
        return torch.zeros_like(self.eps) if self.places and self.calls % 2 == 0 else self.eps

    def mean(self, numbers):
        """The expectation over the noise of a number per image (B,), for each value: in bits."""
        return numbers.numpy().reshape(len(self.values), -1) @ self.weights / math.log(2)

    def bits(self, likelihood, denoise):
        """The bound for each value, and its parts."""
        measured = likelihood.measure(denoise, self.x, None, self)
        parts = {name: self.mean(value) for name, value in measured.items()}
        return sum(parts.values()), parts


def normal(seed, count, shape=(1, 1, 1)):
    """Fast noise for many images."""
    generator = torch.Generator().manual_seed(seed)
    return Given(lambda: torch.randn(count, *shape, generator=generator, dtype=torch.float64))
