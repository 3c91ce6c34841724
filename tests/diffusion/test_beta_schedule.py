"""What a schedule of discrete steps is between its steps; test_schedules.py has what every schedule keeps."""

import pytest
import torch
from diffusion_helpers import alpha_bar, linear_betas, times

from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
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


def test_log_alpha_is_linear_between_the_steps():
    products = torch.from_numpy(alpha_bar(linear_betas(100)))
    schedule = Linear(100)
    for i, fraction in ((0, 0.5), (3, 0.25), (57, 0.9), (99, 0.01)):
        expected = products[i] ** (1 - fraction) * products[i + 1] ** fraction
        torch.testing.assert_close(schedule(times(i + fraction)).alpha.square()[0], expected, rtol=1e-12, atol=0)


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
