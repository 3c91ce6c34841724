"""Samplers that draw noise end in the data's distribution, the nearer the more steps they take.

The exact denoiser of a Gaussian is linear, and so is every sampler around it, in all the noise that is drawn. The
images' mean is then the image without noise, and their covariance the sum of the answers to each number drawn by
itself: both come out exactly, without a sample.
"""

import pytest
import torch
from helpers.draws import Given
from helpers.exact import slope

from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import FixedLarge, FixedSmall
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.euler import Euler
from langevin.samplers.heun import Heun
from langevin.samplers.timestep_spacing import Karras, LogSNR, Trailing

MEAN = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.16, 0.08, -0.03], [0.08, 0.09, 0.02], [-0.03, 0.02, 0.25]], dtype=torch.float64)


class Correlated:
    """The exact denoiser of images of three pixels N(MEAN, COVARIANCE)."""

    def __init__(self, schedule, variance) -> None:
        self.schedule, self.process = schedule, GaussianProcess(schedule, Eps(), variance)

    def __call__(self, x_t, t, cond=None):
        alpha, sigma = self.schedule(t)
        total = alpha**2 * COVARIANCE + sigma**2 * torch.eye(3, dtype=torch.float64)
        whitened = torch.linalg.solve(total, (x_t.flatten(1) - alpha * MEAN).T).T
        x = (MEAN + alpha * whitened @ COVARIANCE).reshape(x_t.shape)
        eps = (sigma * whitened).reshape(x_t.shape)
        return Prediction(x, eps, eps, None)


def moments(sampler, model):
    """The exact mean (3,) and covariance (3, 3) of what the sampler makes."""
    calls = 0

    def none():
        nonlocal calls
        calls += 1
        return torch.zeros(1, 3, 1, 1, dtype=torch.float64)

    mean = sampler(model, Given(none)).flatten()
    numbers = iter(torch.eye(3 * calls, dtype=torch.float64).reshape(3 * calls, calls, 3, 1, 1).unbind(1))
    answers = sampler(model, Given(lambda: next(numbers))).flatten(1) - mean
    return mean, answers.T @ answers


SAMPLERS = {
    "ancestral, vp": (Ancestral(Trailing()), VP(), FixedSmall(), 1),
    "ancestral large, vp": (Ancestral(Trailing()), VP(), FixedLarge(), 1),
    "ancestral, edm": (Ancestral(Karras()), EDMSchedule(), FixedSmall(), 1),
    "ancestral, flow": (Ancestral(Trailing()), FlowSchedule(), FixedSmall(), 1),
    "ancestral large, flow": (Ancestral(Trailing()), FlowSchedule(), FixedLarge(), 1),
    "ddim 1, linear": (DDIM(Trailing(), eta=1.0), Linear(), FixedSmall(), 1),
    "ddim 0.5, vp": (DDIM(Trailing(), eta=0.5), VP(), FixedSmall(), 1),
    "ddim 1, ve": (DDIM(LogSNR(), eta=1.0), VE(sigma_min=1e-3), FixedSmall(), 1),
    "ddim 1, flow": (DDIM(Trailing(), eta=1.0), FlowSchedule(), FixedSmall(), 1),
    "euler, edm": (Euler(Karras(), s_churn=8.0), EDMSchedule(), FixedSmall(), 1),
    "euler, vp": (Euler(Karras(), s_churn=8.0), VP(), FixedSmall(), 1),
    "euler, flow": (Euler(Trailing(), s_churn=8.0), FlowSchedule(), FixedSmall(), 1),
    "heun, edm": (Heun(Karras(), s_churn=8.0), EDMSchedule(), FixedSmall(), 2),
    "heun, linear": (Heun(Karras(), s_churn=8.0), Linear(), FixedSmall(), 1),
    "heun, flow": (Heun(Trailing(), s_churn=8.0), FlowSchedule(), FixedSmall(), 2),
}


# Every day, each sampler on two schedules or so.
SLOW = ("ancestral large, flow", "ddim 1, flow", "euler, flow", "heun, linear", "heun, flow")


@pytest.mark.parametrize(
    ("sampler", "schedule", "variance", "order"),
    [pytest.param(*SAMPLERS[name], id=name, marks=pytest.mark.slow if name in SLOW else ()) for name in SAMPLERS],
)
def test_mean_and_covariance_become_the_datas(sampler, schedule, variance, order):
    model, errors, all_steps = Correlated(schedule, variance), {}, (40, 80, 160)
    for sampler.steps in all_steps:
        mean, covariance = moments(sampler, model)
        errors[sampler.steps] = float(torch.maximum((mean - MEAN).abs().max(), (covariance - COVARIANCE).abs().max()))
    assert slope(errors) > 0.75 * order, errors
    assert errors[160] < 0.025 / order**3, errors
