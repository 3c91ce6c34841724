import numpy as np
import pytest
import torch
from diffusion_helpers import linear_betas, times

from langevin.diffusion.reverse import posterior_mean, transition
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear


def ddpm(betas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """beta-tilde and the two coefficients of the posterior's mean: DDPM, equation 7, t = 1..T."""
    betas = betas.astype(np.longdouble)
    # 1 - alpha_bar without cancellation: v_t = v_{t-1} + alpha_bar_{t-1} beta_t.
    bar = np.concatenate([[1], np.cumprod(1 - betas)])
    one_minus = np.concatenate([[0], np.cumsum(bar[:-1] * betas)])
    tilde = one_minus[:-1] / one_minus[1:] * betas
    of_x = np.sqrt(bar[:-1]) * betas / one_minus[1:]
    of_x_t = np.sqrt(1 - betas) * one_minus[:-1] / one_minus[1:]
    return tilde, of_x, of_x_t


@pytest.mark.parametrize(
    ("schedule", "betas", "precision"),
    [
        (Linear(), linear_betas(1000), 1e-13),
        (Linear(300), linear_betas(300), 1e-13),
        (Cosine(), Cosine().schedule.betas.numpy(), 5e-13),  # beta is 0.004 where alpha is 0.6: digits cancel
    ],
    ids=["linear", "linear300", "cosine"],
)
def test_adjacent_steps_give_ddpms_beta_and_beta_tilde(schedule, betas, precision):
    tilde, _, _ = ddpm(betas)
    t = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    step = transition(schedule, t - 1, t)
    np.testing.assert_allclose(step.variance.numpy(), betas, rtol=precision)
    np.testing.assert_allclose(step.posterior_variance.numpy(), tilde.astype(np.float64), rtol=precision)
    np.testing.assert_allclose(step.alpha.numpy(), np.sqrt(1 - betas), rtol=precision)


@pytest.mark.parametrize("num_steps", [300, 1000])
def test_adjacent_steps_give_ddpms_posterior_mean(num_steps):
    _, of_x, of_x_t = ddpm(linear_betas(num_steps))
    schedule = Linear(num_steps)
    t = torch.arange(1, num_steps + 1, dtype=torch.float64)
    one, zero = torch.ones(num_steps, 1, dtype=torch.float64), torch.zeros(num_steps, 1, dtype=torch.float64)
    weight_of_x = posterior_mean(one, zero, schedule, t - 1, t)
    weight_of_x_t = posterior_mean(zero, one, schedule, t - 1, t)
    np.testing.assert_allclose(weight_of_x[:, 0].numpy(), of_x.astype(np.float64), rtol=1e-12)
    np.testing.assert_allclose(weight_of_x_t[:, 0].numpy(), of_x_t.astype(np.float64), rtol=1e-12)


def condition_gaussian(alpha_s, sigma_s, alpha_t, sigma_t, x, x_t) -> tuple[float, float]:
    """The mean and variance of x_s given x_t, from the joint covariance of (x_s, x_t) at a known x."""
    carried = alpha_t / alpha_s
    fresh = sigma_t**2 - carried**2 * sigma_s**2
    make = np.array([[sigma_s, 0.0], [carried * sigma_s, np.sqrt(fresh)]])  # (x_s, x_t) from two unit normals
    covariance = make @ make.T
    gain = covariance[0, 1] / covariance[1, 1]
    return alpha_s * x + gain * (x_t - alpha_t * x), np.linalg.det(covariance) / covariance[1, 1]


CASES = [
    (Linear(), 1.0, 2.0),
    (Linear(), 250.0, 700.0),
    (Linear(), 999.0, 1000.0),
    (Linear(), 0.5, 1000.0),
    (Linear(), 3.25, 3.75),
    (Cosine(), 10.0, 500.0),
    (Cosine(), 900.0, 998.0),
    (Cosine(20), 5.0, 19.0),
    (FlowSchedule(), 0.1, 0.7),
    (FlowSchedule(), 0.5, 0.999),
    (EDMSchedule(), 0.5, 80.0),
    (EDMSchedule(), 3.0, 3.5),
]


@pytest.mark.parametrize(("schedule", "s", "t"), CASES)
def test_any_two_times_agree_with_bayes_rule(schedule, s, t):
    s, t = times(s), times(t)
    at_s, at_t = schedule(s), schedule(t)
    x, x_t = -0.37, 1.42
    mean, variance = condition_gaussian(*(float(v) for v in (*at_s, *at_t)), x, x_t)
    ours = posterior_mean(times(x), times(x_t), schedule, s, t)
    assert ours.item() == pytest.approx(mean, rel=1e-9)
    assert transition(schedule, s, t).posterior_variance.item() == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize(("schedule", "s", "t"), CASES)
def test_marginals_follow_from_the_transition(schedule, s, t):
    s, t = times(s), times(t)
    at_s, at_t, step = schedule(s), schedule(t), transition(schedule, s, t)
    torch.testing.assert_close(step.alpha * at_s.alpha, at_t.alpha, rtol=1e-13, atol=0)
    total = step.alpha.square() * at_s.sigma.square() + step.variance
    torch.testing.assert_close(total, at_t.sigma.square(), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("schedule", "r", "s", "t"),
    [(Linear(), 3.0, 400.0, 900.0), (Cosine(), 0.0, 1.0, 999.0), (FlowSchedule(), 0.2, 0.3, 0.9)],
)
def test_two_transitions_compose_to_one(schedule, r, s, t):
    r, s, t = times(r), times(s), times(t)
    first, second, both = transition(schedule, r, s), transition(schedule, s, t), transition(schedule, r, t)
    torch.testing.assert_close(first.alpha * second.alpha, both.alpha, rtol=1e-13, atol=0)
    variance = second.alpha.square() * first.variance + second.variance
    torch.testing.assert_close(variance, both.variance, rtol=1e-12, atol=0)


def test_stepping_to_the_data_leaves_no_doubt():
    schedule = Linear()
    s, t = times(0.0), times(700.0)
    step = transition(schedule, s, t)
    torch.testing.assert_close(step.variance, schedule(t).sigma.square(), rtol=1e-15, atol=0)
    assert step.posterior_variance.item() == 0
    assert posterior_mean(times(0.3), times(1.2), schedule, s, t).item() == pytest.approx(0.3, abs=1e-15)


def test_stepping_from_pure_noise_keeps_only_the_image():
    s, t = times(0.6), times(1.0)  # Flow has no signal at 1
    assert posterior_mean(times(0.3), times(1.2), FlowSchedule(), s, t).item() == pytest.approx(0.4 * 0.3)
    assert transition(FlowSchedule(), s, t).posterior_variance.item() == pytest.approx(0.36)
