"""The tutorial's sampling, written out."""

import torch
from helpers.draws import Given
from torch import nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedSmall
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ancestral_clamped import ClampedAncestral
from langevin.samplers.timestep_spacing import Trailing

T = 30
SHAPE = (2, 3, 4, 4)


class Network(nn.Module):
    """Some function of the image and of the time's index."""

    def forward(self, x, c_noise, cond=None):
        index = c_noise * T / 1000
        return 0.9 * torch.tanh(2 * x) + 0.01 * index[:, None, None, None]


def noises():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, dtype=torch.float64, generator=generator) for _ in range(T + 1)]


def tutorial(clamp):
    """The mean of DDPM's algorithm 2, the posterior's variance, no noise in the last step; then the clamp."""
    betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    cumulative = torch.cumprod(1 - betas, 0)
    previous = torch.cat((torch.ones(1, dtype=torch.float64), cumulative[:-1]))
    draws = iter(noises())
    x = next(draws)
    for i in reversed(range(T)):
        eps = Network()(x, torch.full((2,), i * 1000 / T, dtype=torch.float64))
        x = (x - betas[i] / (1 - cumulative[i]).sqrt() * eps) / (1 - betas[i]).sqrt()
        if i > 0:
            x = x + (betas[i] * (1 - previous[i]) / (1 - cumulative[i])).sqrt() * next(draws)
        x = clamp(x)
    return x


def sample(sampler):
    denoiser = Denoiser(Network(), GaussianProcess(Linear(T, rescale=False), Eps(), FixedSmall()))
    draws = iter(noises())
    return sampler(Trailing())(denoiser, Given(lambda: next(draws)))


def test_is_the_tutorials_loop():
    clamped = sample(ClampedAncestral)
    torch.testing.assert_close(clamped, tutorial(lambda x: x.clamp(-1, 1)), rtol=0, atol=1e-10)
    free = sample(Ancestral)
    torch.testing.assert_close(free, tutorial(lambda x: x), rtol=0, atol=1e-10)
    assert (free - clamped).abs().max() > 0.1
