"""A model that is exactly right has the data's entropy."""

import numpy as np
import pytest
import torch
from helpers.exact import gaussian
from likelihood_helpers import Bytes, GaussianVariance, Nodes, gaussian_bytes
from scipy.stats import norm

from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.likelihood.continuous_vlb import ContinuousVLB
from langevin.likelihood.discrete_vlb import DiscreteVLB
from langevin.likelihood.probability_flow import ProbabilityFlow

SCHEDULES = {"vp": VP(), "edm": EDMSchedule(sigma_min=1e-3), "flow": FlowSchedule(), "linear": Linear(1000)}
CONTINUOUS = {"continuous_vlb": (ContinuousVLB(128), True), "probability_flow": (ProbabilityFlow(80), False)}


def excess(likelihood, denoise, values, probabilities, places):
    """The mean over the data of the bound less the value's own -log2 P."""
    spacing = 0.6 if isinstance(likelihood, ProbabilityFlow) else 0.2  # its integrand is smooth
    bits, _ = Nodes(values, places, spacing).bits(likelihood, denoise)
    return float(probabilities @ (bits + np.log2(probabilities)))


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("schedule", ["vp", pytest.param("edm", marks=pytest.mark.slow), "flow"])
def test_in_continuous_time(schedule, name):
    """Down to a noise of a sixth of the distance of two bytes, where the model must know that they are bytes."""
    values, probabilities = gaussian_bytes(0.1, 0.05)
    assert len(values) > 60
    likelihood, places = CONTINUOUS[name]
    denoise = Bytes(SCHEDULES[schedule], values, probabilities)
    assert abs(excess(likelihood, denoise, values, probabilities, places)) < 1e-3


@pytest.mark.parametrize("schedule", [Linear(100), Linear(20, beta_start=1e-3, beta_end=0.6, rescale=False)])
def test_in_discrete_steps(schedule):
    """For Gaussian data the reverse steps are Gaussian: few suffice."""
    values, probabilities = gaussian_bytes(0.1, 0.25)
    denoise = gaussian(schedule, 0.1, 0.25, GaussianVariance(0.25))
    assert 0 < excess(DiscreteVLB(clip=False), denoise, values, probabilities, False) < 1e-3


def test_a_wrong_variance_and_a_wrong_mean_cost():
    """What the tests above would not see if the bound were too forgiving: each cost is that of its closed form."""
    values, probabilities = gaussian_bytes(0.1, 0.25)
    wrong = gaussian(VP(), 0.2, 0.25)
    # The data's KL divergence from N(0.2, 0.25^2), in bits, of a pixel.
    cost = 0.1**2 / (2 * 0.25**2) / np.log(2)
    right = gaussian(VP(), 0.1, 0.25)
    for likelihood, places in ((ContinuousVLB(64, log_snr_max=10), True), (ProbabilityFlow(25, log_snr_max=10), False)):
        found = [excess(likelihood, denoise, values, probabilities, places) for denoise in (wrong, right)]
        assert found[0] - found[1] == pytest.approx(cost, rel=0.01)
    schedule = Linear(50)
    inexact = gaussian(schedule, 0.1, 0.25)  # beta-tilde is too small for steps so large
    assert excess(DiscreteVLB(clip=False), inexact, values, probabilities, False) > 0.01


def test_the_first_time_of_a_discrete_schedule_is_that_of_its_noise():
    """There the decoder knows only which byte is near: a cost that follows from the noise, the same for both bounds."""
    values, probabilities = gaussian_bytes(0.1, 0.05)
    schedule = SCHEDULES["linear"]
    ratio = float(schedule(torch.tensor(1.0, dtype=torch.float64)).ratio)
    # E KL(p(x | x_t) || N(x_t / alpha, ratio^2)), of Gaussians: -1/2 log r + (r - 1 + squared gap of the means) / 2.
    r = 0.05**2 / (0.05**2 + ratio**2)
    gap = (1 - r) ** 2 * (0.05**2 + ratio**2) / ratio**2
    cost = 0.5 * (-np.log(r) + r - 1 + gap) / np.log(2)
    for likelihood, places in CONTINUOUS.values():
        found = excess(likelihood, Bytes(schedule, values, probabilities), values, probabilities, places)
        assert found == pytest.approx(cost, abs=1e-3)
        assert found > 0.02


def test_the_helpers_bytes_are_a_gaussians():
    for std in (0.05, 0.25):
        values, probabilities = gaussian_bytes(0.1, std)
        assert probabilities.sum() == pytest.approx(1)
        assert probabilities @ values == pytest.approx(0.1, abs=1e-3)
        # The continuous entropy less that of a bin, and Sheppard's correction for the bin's width.
        nats = norm(0, std).entropy() - np.log(2 / 255) + (2 / 255 / std) ** 2 / 24
        assert -(probabilities @ np.log2(probabilities)) == pytest.approx(nats / np.log(2), abs=1e-3)
