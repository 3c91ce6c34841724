"""The schedules against those of diffusers, in float64 wherever diffusers can be brought to it."""

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, ScoreSdeVeScheduler
from diffusion_helpers import normal, times, wide

from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.quadratic import QuadraticSchedule
from langevin.diffusion.schedules.ve import VE


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def in_float64(name: str, steps: int, start: float, end: float) -> np.ndarray:
    """The betas of diffusers' schedule, as its source has them, but in float64."""
    if name == "linear":
        return np.linspace(start, end, steps)
    if name == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, steps) ** 2
    bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


@pytest.mark.parametrize(
    ("schedule", "name", "start", "end"),
    [
        (Linear(), "linear", 1e-4, 0.02),
        (Linear(300, rescale=False), "linear", 1e-4, 0.02),
        (Linear(300), "linear", 1e-4 / 0.3, 0.02 / 0.3),
        (QuadraticSchedule(), "scaled_linear", 1e-4, 0.02),
        (QuadraticSchedule(1000, 8.5e-4, 0.012), "scaled_linear", 8.5e-4, 0.012),
        (QuadraticSchedule(250), "scaled_linear", 4e-4, 0.08),
        (Cosine(), "squaredcos_cap_v2", 1e-4, 0.02),
        (Cosine(50), "squaredcos_cap_v2", 1e-4, 0.02),
    ],
)
def test_ddpms_tables(schedule, name, start, end):
    steps = schedule.num_steps
    theirs = DDPMScheduler(num_train_timesteps=steps, beta_schedule=name, beta_start=start, beta_end=end)
    exact = np.cumprod(1 - in_float64(name, steps, start, end))
    np.testing.assert_allclose(theirs.alphas_cumprod.numpy(), exact, rtol=0, atol=1e-6)
    alpha, sigma = schedule(torch.arange(1, steps + 1, dtype=torch.float64))
    np.testing.assert_allclose(alpha.square().numpy(), exact, rtol=1e-10)
    np.testing.assert_allclose(sigma.square().numpy(), 1 - exact, rtol=1e-10)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(50)])
def test_noise_is_added_as_in_ddpm(schedule):
    name = "linear" if isinstance(schedule, Linear) else "squaredcos_cap_v2"
    theirs = DDPMScheduler(num_train_timesteps=schedule.num_steps, beta_schedule=name)
    theirs.alphas_cumprod = torch.from_numpy(np.cumprod(1 - in_float64(name, schedule.num_steps, 1e-4, 0.02)))
    index = torch.tensor([0, 1, 25, schedule.num_steps - 1])
    x, eps = normal(4, 1, 2, 2, seed=1), normal(4, 1, 2, 2, seed=2)
    alpha, sigma = schedule(index.double() + 1)
    torch.testing.assert_close(wide(alpha) * x + wide(sigma) * eps, theirs.add_noise(x, eps, index), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("steps", "most"), [(30, 50.0), (2000, 1348.0)])
def test_score_sdes_variance_exploding_sigmas(steps, most):
    theirs = ScoreSdeVeScheduler(num_train_timesteps=steps, sigma_min=0.01, sigma_max=most)
    ours = VE(steps, 0.01, most)(torch.arange(1.0, steps + 1))
    torch.testing.assert_close(ours.sigma, theirs.discrete_sigmas, rtol=1e-10, atol=0)
    # Its continuous sigmas, at the times it would step through.
    assert theirs.timesteps.dtype == torch.float64
    continuous = VE(None, 0.01, most)(theirs.timesteps)
    torch.testing.assert_close(continuous.sigma, theirs.sigmas, rtol=1e-10, atol=0)
    assert VE(steps, 0.01, most).prior_std == pytest.approx(theirs.init_noise_sigma, rel=1e-12)


def test_edms_range_and_noise():
    theirs, schedule = EDMEulerScheduler(), EDMSchedule()
    sigmas = theirs.sigmas[:-1].double()
    assert float(sigmas[0]) == pytest.approx(schedule.t_max, rel=1e-6)
    assert float(sigmas[-1]) == pytest.approx(schedule.t_min, rel=1e-6)
    index = torch.tensor([0, 500, 999])
    x, eps = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    alpha, sigma = schedule(sigmas[index])
    ours = wide(alpha) * x + wide(sigma) * eps
    torch.testing.assert_close(ours, theirs.add_noise(x, eps, theirs.timesteps[index]), rtol=1e-10, atol=0)
    # diffusers reckons the variance of the data in, as 1.
    assert theirs.init_noise_sigma == pytest.approx((schedule.prior_std**2 + 1) ** 0.5, rel=1e-6)


def test_flow_matchings_path():
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)
    schedule = FlowSchedule(1000)
    t = torch.arange(1000, 0, -1, dtype=torch.float64)
    torch.testing.assert_close(schedule(t).sigma, theirs.sigmas.double(), rtol=0, atol=1e-7)
    x, eps = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    alpha, sigma = schedule(times(1000.0, 700.0, 1.0))
    expected = theirs.scale_noise(x, torch.tensor([1000.0, 700.0, 1.0]), eps)
    torch.testing.assert_close(wide(alpha) * x + wide(sigma) * eps, expected, rtol=0, atol=1e-6)
