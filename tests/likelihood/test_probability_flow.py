import itertools
import math

import numpy as np
import pytest
import torch
from helpers.exact import Mixture, slope
from likelihood_helpers import LEVELS, Nodes, normal
from scipy.stats import multivariate_normal

from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.likelihood.continuous_vlb import ContinuousVLB
from langevin.likelihood.interval import Interval, time_at
from langevin.likelihood.probability_flow import ProbabilityFlow, velocity

SCHEDULES = {"vp": VP(), "edm": EDMSchedule(), "ve": VE(), "flow": FlowSchedule(), "linear": Linear(1000)}


def start(schedule, interval):
    """The coefficients of y at the first time: alpha and sigma over their norm."""
    alpha, sigma = schedule(time_at(schedule, interval(schedule)[0]))
    return float(alpha / torch.hypot(alpha, sigma)), float(sigma / torch.hypot(alpha, sigma))


def of_mixture(denoise, y, interval):
    """The exact log-density of y at the first time, an image: nats a dimension."""
    alpha, sigma = start(denoise.schedule, interval)
    variance = alpha**2 * denoise.stds**2 + sigma**2
    gap = y[..., None] - alpha * denoise.means
    log_p = torch.log(denoise.weights) - 0.5 * torch.log(2 * math.pi * variance) - gap**2 / (2 * variance)
    return torch.logsumexp(log_p, -1).flatten(1).mean(1)


def noisy(denoise, interval, shape=(64, 1, 1, 1)):
    """Images of the mixture with the noise of the first time."""
    generator = torch.Generator().manual_seed(0)
    alpha, sigma = start(denoise.schedule, interval)
    index = torch.multinomial(denoise.weights, math.prod(shape), True, generator=generator)
    draws = torch.randn(2, math.prod(shape), generator=generator, dtype=torch.float64)
    return (alpha * (denoise.means[index] + denoise.stds[index] * draws[0]) + sigma * draws[1]).reshape(shape)


def density(likelihood, denoise, y):
    with torch.no_grad():
        return sum(likelihood.density(denoise, y, None, normal(1, len(y), y.shape[1:]), torch.float64))


@pytest.mark.parametrize("name", SCHEDULES)
def test_it_is_the_density_of_a_mixture(name):
    """Pixel by pixel; what is left is that the prior is not quite the mixture's density at the last time."""
    likelihood = ProbabilityFlow(50)
    denoise = Mixture(SCHEDULES[name])
    y = noisy(denoise, likelihood.interval)
    exact = of_mixture(denoise, y, likelihood.interval)
    assert float(exact.std()) > 0.5
    torch.testing.assert_close(density(likelihood, denoise, y), exact, rtol=0, atol=5e-3)
    assert float((density(likelihood, denoise, y) - exact).mean().abs()) < 3e-4


@pytest.mark.parametrize("name", ["vp", pytest.param("edm", marks=pytest.mark.slow), "flow"])
def test_it_is_of_order_four(name):
    denoise = Mixture(SCHEDULES[name])
    y = noisy(denoise, Interval(8.0, -15.0), (16, 1, 1, 1))

    def solved(steps):
        return density(ProbabilityFlow(steps, log_snr_max=8.0), denoise, y)

    fine = solved(300)
    errors = {steps: float((solved(steps) - fine).abs().mean()) for steps in (36, 54, 81)}
    assert slope(errors) == pytest.approx(4, abs=0.5)


class Correlated:
    """The exact denoiser of images (1, 2, 2) of N(mean, covariance)."""

    def __init__(self, schedule):
        self.schedule, self.process = schedule, GaussianProcess(schedule, Eps())
        root = torch.tensor([[0.5, 0, 0, 0], [0.4, 0.2, 0, 0], [-0.3, 0.1, 0.3, 0], [0.2, -0.3, 0.1, 0.4]]).double()
        self.covariance, self.mean = root @ root.T, torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=torch.float64)

    def marginal(self, alpha, sigma):
        return alpha**2 * self.covariance + sigma**2 * torch.eye(4, dtype=torch.float64)

    def __call__(self, x_t, t, cond=None):
        alpha, sigma = self.schedule(t)
        flat = x_t.flatten(1) - alpha * self.mean
        eps = (sigma * torch.linalg.solve(self.marginal(alpha, sigma), flat.T).T).reshape(x_t.shape)
        return Prediction((x_t - sigma * eps) / alpha, eps, eps, None)


def test_the_mean_over_all_signs_is_the_exact_divergence():
    """Sixteen images of signs on four pixels; and one alone is not, which is why there is a mean."""
    denoise = Correlated(VE())
    t = time_at(denoise.schedule, torch.tensor(0.5, dtype=torch.float64))
    alpha, sigma = denoise.schedule(t)
    norm = torch.hypot(alpha, sigma)
    s = sigma / norm
    y = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = [torch.tensor(row, dtype=torch.float64).reshape(1, 1, 2, 2) for row in itertools.product((-1, 1), repeat=4)]
    with torch.no_grad():
        direction, divergence = velocity(denoise, y, t, None, signs)
        singles = [float(velocity(denoise, y, t, None, [sign])[1]) for sign in signs]
    jacobian = s * (norm * sigma * torch.linalg.inv(denoise.marginal(alpha, sigma)) - s * torch.eye(4).double())
    # A dimension: the trace over its four.
    assert float(divergence) == pytest.approx(float(jacobian.trace()) / 4, rel=1e-9)
    assert np.std(singles) > 0.05
    # And the velocity is that of the ODE of the paper, dx_t/dt = alpha' x_hat + sigma' eps_hat, for y = x_t / norm.
    prediction = denoise(norm * y, t)
    rate = denoise.schedule.rate(t)
    of_x_t = rate.alpha * prediction.x + rate.sigma * prediction.eps
    of_norm = (alpha * rate.alpha + sigma * rate.sigma) / norm
    of_log_ratio = rate.sigma / sigma - rate.alpha / alpha
    expected = (of_x_t - of_norm * y) / norm / of_log_ratio
    torch.testing.assert_close(direction, expected)


def test_it_is_the_density_of_correlated_pixels():
    """On the average over the signs: one image, over and over; and four probes have half the spread of one."""
    denoise = Correlated(EDMSchedule())
    y = torch.tensor([0.5, -0.6, 0.3, 0.2], dtype=torch.float64)
    alpha, sigma = start(denoise.schedule, ProbabilityFlow().interval)
    law = multivariate_normal(alpha * denoise.mean.numpy(), denoise.marginal(alpha, sigma).numpy())
    exact, spreads = law.logpdf(y.numpy()) / 4, {}
    for probes, count in ((1, 6000), (4, 1500)):
        found = density(ProbabilityFlow(25, probes), denoise, y.reshape(1, 1, 2, 2).repeat(count, 1, 1, 1))
        spreads[probes] = float(found.std())
        error = spreads[probes] / math.sqrt(count)
        assert error < 3e-3
        assert float(found.mean()) == pytest.approx(exact, abs=1e-3 + 4 * error)
    assert spreads[1] / spreads[4] == pytest.approx(2, rel=0.1)


def test_its_parts_are_those_of_a_gaussian():
    """Each by its closed form: where the flow of N(m, s^2) ends is known, and so is how its volume grows."""
    mean, std, schedule = 0.3, 0.4, VP()
    likelihood = ProbabilityFlow(50, log_snr_max=8.0)
    nodes = Nodes(LEVELS[[100, 180]], spacing=0.4)
    _, parts = nodes.bits(likelihood, Mixture(schedule, (mean,), (std,), (1.0,)))
    (a, b), (c, d) = start(schedule, likelihood.interval), schedule(torch.tensor(1.0, dtype=torch.float64))
    growth = math.sqrt((float(c) ** 2 * std**2 + float(d) ** 2) / (a**2 * std**2 + b**2))
    ends = float(c) * mean + growth * (a * (nodes.x - mean) + b * nodes.eps)
    prior = nodes.mean((0.5 * ends.square() + 0.5 * math.log(2 * math.pi)).flatten())
    np.testing.assert_allclose(parts["prior"], prior, atol=1e-4)
    np.testing.assert_allclose(parts["volume"], -math.log2(growth), atol=1e-4)
    np.testing.assert_allclose(parts["encoder"], -0.5 * math.log2(2 * math.pi * math.e * b**2), atol=1e-4)


def test_it_agrees_with_the_variational_bound():
    """For a model that is exact both are minus the data's log-density plus the same cost of the bytes, on average."""
    values = LEVELS[::4]
    denoise = Mixture(FlowSchedule())
    weights = np.exp(of_mixture(denoise, torch.from_numpy(values).reshape(-1, 1, 1, 1), Interval(60.0, -15.0)).numpy())
    weights /= weights.sum()
    options = {"log_snr_max": 9.0, "log_snr_min": -12.0}
    ode, _ = Nodes(values, spacing=0.6).bits(ProbabilityFlow(40, **options), denoise)
    bound, _ = Nodes(values, True, 0.4).bits(ContinuousVLB(100, **options), denoise)
    assert weights @ ode == pytest.approx(weights @ bound, abs=1e-3)
    # Image by image the bound is the greater by what the reverse steps' noise costs: nothing, if they are exact.
    np.testing.assert_allclose(ode, bound, atol=5e-3)


def test_it_works_in_inference_mode_and_leaves_no_graph():
    denoise = Correlated(VP())
    x = torch.zeros(2, 1, 2, 2)
    expected = ProbabilityFlow(3).measure(denoise, x.double(), None, normal(0, 2, (1, 2, 2)))
    with torch.inference_mode():
        inside = torch.zeros(2, 1, 2, 2).double()
        cond = {"label": torch.zeros(2)}
        found = ProbabilityFlow(3).measure(denoise, inside, cond, normal(0, 2, (1, 2, 2)))
    for name, value in found.items():
        assert torch.equal(value, expected[name])
        assert not value.requires_grad
        assert not expected[name].requires_grad
