"""What every schedule of discrete steps keeps, between its steps too."""

import pytest
import torch
from diffusion_helpers import Flow, alpha_bar, linear_betas, times

from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.schedule import BetaSchedule
from langevin.errors import UserError

SCHEDULES = {
    "linear": Linear(),
    "linear300": Linear(300),
    "cosine": Cosine(),
    "cosine10": Cosine(10),
    "one": Linear(1, rescale=False),
}


@pytest.fixture(params=SCHEDULES.values(), ids=SCHEDULES.keys())
def schedule(request):
    return request.param


def everywhere(schedule) -> torch.Tensor:
    """Whole times and times between them, from 0 to T."""
    return torch.linspace(0, schedule.t_max, 4 * schedule.num_steps + 1, dtype=torch.float64)


def test_variance_is_preserved(schedule):
    alpha, sigma = schedule(everywhere(schedule))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-14)


def test_signal_falls_and_noise_grows(schedule):
    level = schedule(everywhere(schedule))
    assert (level.log_snr.diff() < 0).all()
    assert (level.alpha.diff() < 0).all()
    assert (level.sigma.diff() > 0).all()


def test_starts_at_the_data_and_ends_in_noise(schedule):
    alpha, sigma = schedule(times(0.0))
    assert (alpha.item(), sigma.item()) == (1.0, 0.0)
    assert schedule.t_max == schedule.num_steps
    assert schedule.prior_std == 1


def test_level_is_float64_of_the_shape_of_the_times(schedule):
    for t in (torch.tensor(0.5, dtype=torch.float64), times(1.0), torch.full((2, 3), 0.75, dtype=torch.float64)):
        for value in (*schedule(t), *schedule.rate(t), schedule.time_of(schedule(t).ratio)):
            assert value.shape == t.shape
            assert value.dtype == torch.float64


def test_log_alpha_is_linear_between_the_steps():
    products = torch.from_numpy(alpha_bar(linear_betas(100)))
    schedule = Linear(100)
    for i, fraction in ((0, 0.5), (3, 0.25), (57, 0.9), (99, 0.01)):
        expected = products[i] ** (1 - fraction) * products[i + 1] ** fraction
        torch.testing.assert_close(schedule(times(i + fraction)).alpha.square()[0], expected, rtol=1e-12, atol=0)


def test_time_of_is_the_inverse_of_the_ratio(schedule):
    t = everywhere(schedule)
    torch.testing.assert_close(schedule.time_of(schedule(t).ratio), t, rtol=0, atol=1e-9)


def test_time_of_extreme_ratios(schedule):
    assert schedule.time_of(times(0.0)).item() == 0
    assert schedule.time_of(times(1e30, float("inf"))).tolist() == [schedule.t_max] * 2


def test_rate_is_the_slope(schedule):
    steps = torch.arange(schedule.num_steps, dtype=torch.float64)
    t = torch.cat([steps + 0.3, steps + 0.8])
    h = 1e-4
    before, after, rate = schedule(t - h), schedule(t + h), schedule.rate(t)
    torch.testing.assert_close(rate.alpha, (after.alpha - before.alpha) / (2 * h), rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(rate.sigma, (after.sigma - before.sigma) / (2 * h), rtol=1e-5, atol=1e-10)


def test_rate_at_whole_times_is_the_slope_from_below(schedule):
    t = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    h = 1e-6
    now, before, rate = schedule(t), schedule(t - h), schedule.rate(t)
    torch.testing.assert_close(rate.alpha, (now.alpha - before.alpha) / h, rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(rate.sigma, (now.sigma - before.sigma) / h, rtol=1e-3, atol=1e-9)


def test_rate_equals_autograd(schedule):
    t = (torch.arange(schedule.num_steps, dtype=torch.float64) + 0.4).requires_grad_()
    alpha, sigma = schedule(t)
    rate = schedule.rate(t.detach())
    slope_of_alpha, slope_of_sigma = (torch.autograd.grad(v.sum(), t, retain_graph=True)[0] for v in (alpha, sigma))
    torch.testing.assert_close(rate.alpha, slope_of_alpha, rtol=1e-12, atol=0)
    torch.testing.assert_close(rate.sigma, slope_of_sigma, rtol=1e-12, atol=1e-15)


def test_betas_are_kept():
    betas = times(0.1, 0.2, 0.5)
    schedule = BetaSchedule(betas)
    expected = times(1.0, 0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.5)
    torch.testing.assert_close(schedule(times(0.0, 1.0, 2.0, 3.0)).alpha.square(), expected, rtol=1e-14, atol=0)
    assert torch.equal(schedule.betas, betas)


@pytest.mark.parametrize("betas", [(0.1, 0.0), (0.1, 1.0), (-0.1, 0.1), (0.1, 1.1), (0.1, float("nan"))])
def test_betas_outside_zero_and_one_are_refused(betas):
    with pytest.raises(UserError, match="between 0 and 1"):
        BetaSchedule(times(*betas))


def test_clock_of_a_thousand_steps_is_ddpms_index():
    assert torch.equal(Linear().clock(torch.arange(1.0, 1001.0)), torch.arange(1000.0))


def test_clock_of_other_numbers_of_steps_keeps_the_scale():
    assert Linear(4000).clock(times(1.0, 5.0, 4000.0)).tolist() == [0.0, 1.0, 999.75]
    assert Linear(250).clock(times(1.0, 2.0, 250.0)).tolist() == [0.0, 4.0, 996.0]


def test_clock_of_continuous_time():
    assert Flow().clock(times(0.0, 0.25, 1.0)).tolist() == [0.0, 250.0, 1000.0]
