"""Each parameterization against its paper's formula."""

import math

import numpy as np
import pytest
import torch
from conf_parts import component
from diffusers import DDPMScheduler, EDMEulerScheduler
from diffusion_helpers import linear_betas, normal, times, wide
from torch import nn

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import EDMParameterization, FlowParameterization, PosteriorMean, Score, V, X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.rescalings.resolution_shift import ResolutionShift
from langevin.diffusion.schedules import edm, flow
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.reciprocal import Reciprocal
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import FixedSmall

PIXELS = (4, 2, 3, 3)


class Network(nn.Module):
    """Puts out the given, and keeps what it was shown."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, x, c_noise, cond=None):
        self.x, self.c_noise = x, c_noise
        return self.output


def predicted(parameterization, schedule, output, x_t, t):
    """The prediction, and the network that was asked."""
    network = Network(output)
    return Denoiser(network, GaussianProcess(schedule, parameterization, FixedSmall()))(x_t, t), network


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edms_preconditioning(sigma_data):
    sigma, x_t, output = times(0.002, 0.3, 2.0, 80.0), normal(*PIXELS, seed=1), normal(*PIXELS, seed=2)
    prediction, network = predicted(EDMParameterization(sigma_data), edm.EDMSchedule(), output, x_t, sigma)
    # Karras et al. 2022, table 1, "Ours".
    c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
    c_out = sigma * sigma_data / (sigma_data**2 + sigma**2).sqrt()
    c_in = 1 / (sigma**2 + sigma_data**2).sqrt()
    c_noise = sigma.log() / 4
    torch.testing.assert_close(prediction.x, wide(c_skip) * x_t + wide(c_out) * output, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(network.x, wide(c_in) * x_t, rtol=1e-14, atol=0)
    torch.testing.assert_close(network.c_noise, c_noise, rtol=1e-13, atol=1e-15)


def test_edms_preconditioning_in_diffusers():
    sigma, x_t, output = times(0.002, 0.3, 2.0, 80.0), normal(*PIXELS, seed=1), normal(*PIXELS, seed=2)
    theirs = EDMEulerScheduler(sigma_data=0.5)
    prediction, network = predicted(EDMParameterization(0.5), edm.EDMSchedule(), output, x_t, sigma)
    expected = theirs.precondition_outputs(x_t, output, wide(sigma))
    torch.testing.assert_close(prediction.x, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(network.x, theirs.precondition_inputs(x_t, wide(sigma)), rtol=1e-10, atol=0)
    torch.testing.assert_close(network.c_noise, theirs.precondition_noise(sigma), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("schedule", "t"), [(Linear(), (1.0, 300.0, 1000.0)), (VP(), (0.01, 0.5, 1.0))])
def test_edms_preconditioning_with_alpha_is_that_of_x_t_over_alpha(schedule, t):
    t, x_t, output = times(*t), normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    prediction, network = predicted(EDMParameterization(), schedule, output, x_t, t)
    level = schedule(t)
    exploded, other = predicted(
        EDMParameterization(), edm.EDMSchedule(1e-6, 1e6), output, x_t / wide(level.alpha), level.ratio
    )
    torch.testing.assert_close(prediction.x, exploded.x, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(network.x, other.x, rtol=1e-12, atol=0)
    torch.testing.assert_close(network.c_noise, other.c_noise, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
@pytest.mark.parametrize("schedule", [edm.EDMSchedule(), Linear(), VP(), VE()])
def test_edms_input_and_target_have_unit_variance(schedule, sigma_data):
    # For x of variance sigma_data^2 that is independent of eps, at every level (equations 7 and following).
    t = torch.linspace(schedule.t_min, schedule.t_max, 20, dtype=torch.float64)
    parameterization = EDMParameterization(sigma_data)
    (alpha, sigma), (a, b) = schedule(t), parameterization.mix(schedule, t)
    target = (a * sigma_data) ** 2 + b**2
    shown = parameterization.c_in(schedule(t)) ** 2 * ((alpha * sigma_data) ** 2 + sigma**2)
    torch.testing.assert_close(target, torch.ones_like(t), rtol=1e-10, atol=0)
    torch.testing.assert_close(shown, torch.ones_like(t), rtol=1e-13, atol=0)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), VP()])
def test_v(schedule):
    t, x, eps = times(0.1, 0.5, 0.9) * schedule.t_max, normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    alpha, sigma = (wide(value) for value in schedule(t))
    a, b = V().mix(schedule, t)
    torch.testing.assert_close(wide(a) * x + wide(b) * eps, alpha * eps - sigma * x, rtol=1e-14, atol=1e-15)
    # Salimans and Ho 2022, appendix D: x = alpha z - sigma v, eps = sigma z + alpha v.
    z, v = alpha * x + sigma * eps, alpha * eps - sigma * x
    prediction, _ = predicted(V(), schedule, v, z, t)
    torch.testing.assert_close(prediction.x, alpha * z - sigma * v, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(prediction.eps, sigma * z + alpha * v, rtol=1e-12, atol=1e-13)


def test_v_in_diffusers():
    theirs = DDPMScheduler(prediction_type="v_prediction")
    theirs.alphas_cumprod = torch.from_numpy(np.cumprod(1 - linear_betas(1000)))
    index = torch.tensor([0, 400, 999])
    x, eps = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    a, b = V().mix(Linear(), index.double() + 1)
    torch.testing.assert_close(wide(a) * x + wide(b) * eps, theirs.get_velocity(x, eps, index), rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", [Linear(), VE(), VP(), edm.EDMSchedule()])
def test_score_is_the_gradient_of_the_density(schedule):
    t = times(0.2, 0.6, 1.0) * schedule.t_max
    x, eps = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)
    alpha, sigma = (wide(value) for value in schedule(t))
    x_t = (alpha * x + sigma * eps).requires_grad_()
    density = torch.distributions.Normal(alpha * x, sigma.expand_as(x))
    (score,) = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)
    a, b = Score().mix(schedule, t)
    torch.testing.assert_close(wide(a) * x + wide(b) * eps, score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "schedule", [flow.FlowSchedule(), flow.FlowSchedule(100), VP(), edm.EDMSchedule(), ResolutionShift(VP(), 160)]
)
def test_flow_is_the_velocity_of_x_t(schedule):
    t = times(0.2, 0.6, 0.95) * schedule.t_max
    x, eps = normal(3, 1, 2, 2, seed=1), normal(3, 1, 2, 2, seed=2)

    def path(t):
        alpha, sigma = schedule(t)
        return wide(alpha) * x + wide(sigma) * eps

    _, velocity = torch.func.jvp(path, (t,), (torch.full_like(t, schedule.num_steps or 1),))
    a, b = FlowParameterization().mix(schedule, t)
    torch.testing.assert_close(wide(a) * x + wide(b) * eps, velocity, rtol=1e-11, atol=1e-13)


def test_flow_on_straight_lines_is_the_noise_less_the_image():
    a, b = FlowParameterization().mix(flow.FlowSchedule(), times(0.01, 0.5, 1.0))
    assert (a.tolist(), b.tolist()) == ([-1] * 3, [1] * 3)


def mu_tilde(betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What x and x_t weigh in the posterior's mean at t = 1..T: DDPM, equation 7, as diffusers has it."""
    bar = np.cumprod(1 - betas.astype(np.longdouble))
    before = np.concatenate([[1], bar[:-1]])
    of_x = np.sqrt(before) * betas / (1 - bar)
    of_x_t = np.sqrt(1 - betas) * (1 - before) / (1 - bar)
    return of_x, of_x_t


@pytest.mark.parametrize("schedule", [Linear(), Linear(40), Reciprocal(1000), Reciprocal(40)])
def test_posterior_mean_is_ddpms_mu_tilde(schedule):
    t = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    of_x, of_x_t = (torch.from_numpy(value.astype(np.float64)) for value in mu_tilde(schedule.betas.numpy()))
    alpha, sigma = schedule(t)
    a, b = component("parameterization", "posterior_mean").mix(schedule, t)
    torch.testing.assert_close(a, of_x + of_x_t * alpha, rtol=1e-11, atol=0)
    torch.testing.assert_close(b, of_x_t * sigma, rtol=1e-11, atol=0)


def test_posterior_mean_is_where_diffusers_steps_to():
    # A step of DDPM's from the true image, less the noise it adds (which it does not at its index 0).
    theirs = DDPMScheduler(prediction_type="sample", clip_sample=False, variance_type="fixed_small")
    theirs.alphas_cumprod = torch.from_numpy(np.cumprod(1 - linear_betas(1000)))
    theirs.one = torch.tensor(1.0, dtype=torch.float64)
    x, eps = normal(1, 1, 2, 2, seed=1), normal(1, 1, 2, 2, seed=2)
    for index in (0, 1, 300, 999):
        t = times(index + 1.0)
        alpha, sigma = (wide(value) for value in Linear()(t))
        a, b = PosteriorMean().mix(Linear(), t)
        x_t = alpha * x + sigma * eps
        there = theirs.step(x, index, x_t, generator=torch.Generator().manual_seed(5)).prev_sample
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        added = theirs._get_variance(index).sqrt() * noise if index > 0 else 0
        torch.testing.assert_close(wide(a) * x + wide(b) * eps, there - added, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", [Reciprocal(1000), Linear(), Linear(40)])
def test_posterior_shift_is_the_means_distance_from_the_faded_image(schedule):
    t = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    alpha, sigma = schedule(t)
    x, eps = normal(len(t), seed=1), normal(len(t), seed=2)
    x_t = alpha * x + sigma * eps
    a, b = component("parameterization", "posterior_shift").mix(schedule, t)
    mean = torch.sqrt(1 - schedule.betas) * x_t + torch.sqrt(schedule.betas) * (a * x + b * eps)
    of_x, of_x_t = (torch.from_numpy(value.astype(np.float64)) for value in mu_tilde(schedule.betas.numpy()))
    torch.testing.assert_close(mean, of_x * x + of_x_t * x_t, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("schedule", [Reciprocal(1000), Linear()])
def test_posterior_shift_follows_the_score(schedule):
    # DDPM, equation 11: mu = (x_t - beta / sigma eps) / sqrt(1 - beta); so F is sqrt(beta / (1 - beta)) times
    # x_t - eps / sigma = alpha x - alpha^2 / sigma eps.
    t = times(2.0, 500.0, 1000.0)
    (alpha, sigma), beta = schedule(t), schedule.betas[t.long() - 1]
    a, b = PosteriorMean(relative=True).mix(schedule, t)
    scale = torch.sqrt(beta / (1 - beta))
    torch.testing.assert_close(a, scale * alpha, rtol=1e-11, atol=0)
    torch.testing.assert_close(b, -scale * alpha**2 / sigma, rtol=1e-9, atol=0)


def test_noise_level_as_the_network_gets_it():
    t = times(1.0, 250.0, 1000.0)
    assert X().c_noise(Linear(), t).tolist() == [0, 249, 999]
    assert X().c_noise(VP(), times(0.25, 1.0)).tolist() == [250, 1000]
    assert EDMParameterization().c_noise(VE(), times(1.0)).item() == pytest.approx(math.log(50) / 4, rel=1e-13)
