"""EDM's churn, which Euler's and Heun's method share."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.draws import Given
from helpers.exact import gaussian
from sampler_helpers import Written, denoiser

from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.errors import UserError
from langevin.samplers.euler import Euler
from langevin.samplers.heun import Heun
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import Karras, Trailing


def raised(schedule, fraction, steps=10, **parameters):
    """What churn makes of ones at a fraction of all time, with noise of ones: the time before, images, time after."""
    sampler = Heun(Trailing(), steps=steps, **parameters)
    times = sampler.timestep_spacing(schedule, steps)
    t = torch.tensor(fraction * schedule.t_max, dtype=torch.float64)
    ones = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    return t, *sampler.churn(Predictor(gaussian(schedule), times), ones, t, Given(ones))


@pytest.mark.parametrize("schedule", [VP(), Linear(), EDMSchedule(), FlowSchedule()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("s_noise", [1.0, 1.007])
def test_raises_the_noise_by_the_forward_process(schedule, s_noise):
    t, x, t_hat = raised(schedule, 0.4, s_churn=2.0, s_noise=s_noise)
    (alpha, sigma), (alpha_hat, sigma_hat) = schedule(t), schedule(t_hat)
    assert float(sigma_hat / alpha_hat) == pytest.approx(1.2 * float(sigma / alpha), rel=1e-9)
    # What x_t holds of the image is scaled to alpha_hat, and new noise makes up for what sigma_hat then lacks.
    kept = float(alpha_hat / alpha)
    added = math.sqrt(float(sigma_hat) ** 2 - (kept * float(sigma)) ** 2)
    torch.testing.assert_close(x, torch.full_like(x, kept + s_noise * added), rtol=0, atol=1e-9 * float(sigma))


def test_discrete_schedules_are_asked_between_their_times():
    t, _, t_hat = raised(Linear(), 0.4, s_churn=0.1)
    assert 400 == t < t_hat < 410
    assert t_hat != t_hat.round()


@pytest.mark.parametrize("s_churn", [5.0, 1000.0])
def test_gamma_has_a_limit(s_churn):
    t, _, t_hat = raised(EDMSchedule(), 0.1, s_churn=s_churn)
    assert float(t_hat / t) == pytest.approx(math.sqrt(2), rel=1e-12)


def test_never_goes_beyond_the_schedule():
    t, x, t_hat = raised(EDMSchedule(), 0.9, s_churn=4.0)
    assert t_hat == 80
    assert float(x[0, 0, 0, 0]) == pytest.approx(1 + math.sqrt(80**2 - 72**2), rel=1e-12)
    for schedule in (EDMSchedule(), VP(), Linear(), FlowSchedule()):
        t, x, t_hat = raised(schedule, 1.0, s_churn=4.0)
        assert t_hat == t
        assert (x == 1).all()


@pytest.mark.parametrize(
    ("limits", "churned"),
    [
        ({}, True),
        ({"s_min": 8.0}, True),
        ({"s_min": 8.01}, False),
        ({"s_max": 8.0}, True),
        ({"s_max": 7.99}, False),
        ({"s_min": 8.0, "s_max": 8.0}, True),
    ],
)
def test_limits_are_of_sigma_over_alpha_and_included(limits, churned):
    t, x, t_hat = raised(EDMSchedule(), 0.1, s_churn=1.0, **limits)
    assert (t_hat > t) == churned
    assert (x > 1).all() == churned


@pytest.mark.parametrize("sampler", [Euler, Heun])
def test_deterministic_without(sampler):
    noise = Written()
    sampler(Trailing(), steps=6, s_noise=2.0)(denoiser(Linear()), noise)
    assert noise.calls == 1  # the prior's
    noise = Written()
    sampler(Trailing(), steps=6, s_churn=1.0)(denoiser(Linear()), noise)
    assert noise.calls == 1 + 5  # there is no raising the first time


@pytest.mark.parametrize("sampler", [Euler, Heun])
def test_limits_the_wrong_way_round_are_refused(sampler):
    with pytest.raises(UserError, match=r"s_max is 1\.0; allowed: at least s_min \(2\.0\)"):
        sampler(Trailing(), s_min=2.0, s_max=1.0)


@pytest.mark.parametrize("second_order", [True, False])
def test_is_edms_algorithm_2(second_order):
    """Written out for data N(mean, std^2), whose denoiser is linear."""
    mean, std, steps, s_churn, s_min, s_max, s_noise = 0.3, 0.4, 12, 8.0, 0.05, 40.0, 1.003
    denoised = lambda x, t: mean + std**2 / (std**2 + t**2) * (x - mean)  # noqa: E731
    times = np.append((80 ** (1 / 7) + np.arange(steps) / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0)
    noise = Written((3, 1, 2, 2))
    x = noise().numpy() * times[0]
    for t, s in pairwise(times):
        gamma = min(s_churn / steps, np.sqrt(2) - 1) if s_min <= t <= s_max else 0
        t_hat = t + gamma * t
        x_hat = x + np.sqrt(t_hat**2 - t**2) * s_noise * noise().numpy() if gamma else x
        d = (x_hat - denoised(x_hat, t_hat)) / t_hat
        x = x_hat + (s - t_hat) * d
        if s > 0 and second_order:
            x = x_hat + (s - t_hat) * (d / 2 + (x - denoised(x, s)) / s / 2)
    sampler = (Heun if second_order else Euler)(Karras(), None, steps, s_churn, s_min, s_max, s_noise)
    ours = sampler(gaussian(EDMSchedule()), Written((3, 1, 2, 2)))
    np.testing.assert_allclose(ours, x, rtol=0, atol=1e-11)
