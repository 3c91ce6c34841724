"""What every schedule of conf/ keeps, discrete and continuous, under every rescaling."""

import itertools
import math

import pytest
import torch
from conf_parts import IMAGE_SIZE, PLAIN, SCHEDULES, every_combination, everywhere, schedule_of, trained
from diffusion_helpers import times
from torch import nn

from langevin.config.validate import options
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import X
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.curve import CurveSchedule, LogSNRSchedule
from langevin.diffusion.schedules.schedule import VariancePreserving
from langevin.diffusion.variance import FixedSmall

B = 0.5  # of conf/rescalings/input_scaling.yaml
FACTOR = IMAGE_SIZE / 64  # of conf/rescalings/resolution_shift.yaml


@pytest.fixture(params=SCHEDULES, ids=lambda name: name.replace(" ", "+"))
def name(request):
    return request.param


@pytest.fixture
def schedule(name):
    return SCHEDULES[name]


def kind(schedule) -> type:
    """The class of a schedule beneath its rescalings."""
    while hasattr(schedule, "schedule"):
        schedule = schedule.schedule
    return type(schedule)


def test_each_schedule_and_each_rescaling_is_here():
    assert {name.partition("-")[0] for name in PLAIN} == set(options("schedule"))
    for discrete in (True, False):
        rescaled = [name for name, schedule in SCHEDULES.items() if (schedule.num_steps is not None) == discrete]
        possible = set(options("rescalings")) - (set() if discrete else {"unscaled_timesteps"})
        assert {part for name in rescaled for part in name.split()[1:]} == possible
    pairs = {tuple(name.split()[1:]) for name in SCHEDULES if name.count(" ") == 2}
    assert pairs == {*itertools.permutations(options("rescalings"), 2)} - {("input_scaling", "zero_terminal_snr")}


@pytest.mark.slow
def test_zero_terminal_snr_is_refused_where_variance_is_not_preserved_and_nothing_else_is():
    preserving = {name for name, schedule in PLAIN.items() if issubclass(kind(schedule), VariancePreserving)}
    assert {name.partition("-")[0] for name in PLAIN.keys() - preserving} == {"edm", "ve", "flow"}
    allowed, refused = every_combination()
    for name in allowed.keys() | refused.keys():
        form, *rescalings = name.split()
        possible = form in preserving and rescalings != ["input_scaling", "zero_terminal_snr"]
        is_stepless = "unscaled_timesteps" in rescalings and PLAIN[form].num_steps is None
        assert (name in refused) == (is_stepless or ("zero_terminal_snr" in rescalings and not possible)), name
        if name in refused:
            assert any(why in refused[name] for why in ("alpha^2 + sigma^2 = 1", *["discrete steps"] * is_stepless))


def test_signal_to_noise_falls_strictly(schedule):
    level = schedule(everywhere(schedule))
    assert (level.log_snr.diff() < 0).all()
    assert (level.alpha.diff() <= 0).all()
    assert (level.sigma.diff() >= 0).all()


def test_level_is_float64_of_the_shape_of_the_times(schedule):
    last = schedule.t_max
    for t in (torch.tensor(last / 2, dtype=torch.float64), times(last), torch.full((2, 3), last / 3).double()):
        for value in (*schedule(t), *schedule.rate(t), schedule.time_of(schedule(t).ratio), schedule.clock(t)):
            assert value.shape == t.shape
            assert value.dtype == torch.float64


def test_starts_at_the_data(name, schedule):
    alpha, sigma = (float(value) for value in schedule(times(0.0)))
    scaled = B if "input_scaling" in name else 1.0
    if issubclass(kind(schedule), LogSNRSchedule):  # logSNR = 15 is left, but for what the rescalings do to it
        shift = FACTOR if "resolution_shift" in name else 1.0
        assert sigma / alpha == pytest.approx(math.exp(-7.5) * shift / scaled, rel=1e-9)
    else:
        assert (alpha, sigma) == (scaled, 0.0)


def test_ends_in_noise(name, schedule):
    alpha, sigma = (float(value) for value in schedule(times(schedule.t_max)))
    if "zero_terminal_snr" in name or name.startswith("flow"):
        assert alpha == 0
        assert sigma == pytest.approx(1, abs=1e-15)
    else:
        assert 0 < alpha < 0.2 * sigma


def test_times_that_a_model_is_asked_at(schedule):
    if schedule.num_steps is None:
        assert 0 < schedule.t_min < 0.01 * schedule.t_max
    else:
        assert (schedule.t_min, schedule.t_max) == (1, schedule.num_steps)
    assert schedule(times(schedule.t_min)).sigma > 0


def test_sampling_starts_from_the_noise_there_is_at_the_end(schedule):
    alpha, sigma = schedule(times(schedule.t_max))
    # What is left of the signal adds less than this, for data of any standard deviation below 2, scaled or not.
    assert schedule.prior_std == pytest.approx(float(sigma), rel=float(4 * (alpha / sigma) ** 2) + 1e-14)


def test_time_of_is_the_inverse_of_the_ratio(schedule):
    t = everywhere(schedule)
    torch.testing.assert_close(schedule.time_of(schedule(t).ratio), t, rtol=0, atol=1e-11 * schedule.t_max)


def test_a_ratio_beyond_the_ends_is_the_end(schedule):
    last = schedule.t_max
    assert schedule.time_of(times(0.0, math.inf)).tolist() == [0, last]
    # Where no noise is at the data or no signal at the end, these are next to it, on a curve that may come to rest.
    assert schedule.time_of(times(1e-30, 1e-200)).tolist() == pytest.approx([0, 0], abs=1e-12 * last)
    assert schedule.time_of(times(1e30, 1e200)).tolist() == pytest.approx([last, last], rel=1e-7)


def test_rate_is_the_derivative(schedule):
    t = everywhere(schedule)
    rate = schedule.rate(t)
    _, derivative = torch.func.jvp(lambda t: tuple(schedule(t)), (t,), (torch.ones_like(t),))
    # What torch derives loses digits where sigma rises from 0 or comes to rest at 1.
    scale = float(derivative[0].abs().max())
    torch.testing.assert_close(rate.alpha, derivative[0], rtol=1e-11, atol=1e-12 * scale)
    torch.testing.assert_close(rate.sigma, derivative[1], rtol=1e-8, atol=1e-12 * scale)


def test_rate_keeps_what_the_schedule_keeps(schedule):
    t = trained(schedule)
    level, rate = schedule(t), schedule.rate(t)
    norm, along = torch.func.jvp(schedule.norm, (level,), (rate,))
    torch.testing.assert_close(norm, torch.ones_like(t), rtol=1e-13, atol=0)
    torch.testing.assert_close(along, torch.zeros_like(t), rtol=0, atol=1e-13 * float(rate.sigma.abs().max()))


def test_network_sees_unit_variance(schedule):
    # Two pixels each of signal and noise of exactly unit variance, and exactly uncorrelated.
    x, eps = times(1, 1, -1, -1).reshape(1, 1, 2, 2), times(1, -1, 1, -1).reshape(1, 1, 2, 2)

    class Look(nn.Module):
        def forward(self, x, c_noise, cond):
            self.variance = x.square().mean((1, 2, 3)) - x.mean((1, 2, 3)).square()
            return x

    t, network = trained(schedule), Look()
    alpha, sigma = (value.reshape(-1, 1, 1, 1) for value in schedule(t))
    Denoiser(network, GaussianProcess(schedule, X(), FixedSmall()))(alpha * x + sigma * eps, t)
    torch.testing.assert_close(network.variance, torch.ones_like(t), rtol=1e-13, atol=0)


def test_clock(name, schedule):
    t = trained(schedule)
    if schedule.num_steps is not None:
        scale = 1 if "unscaled_timesteps" in name else 1000 / schedule.num_steps
        expected = torch.arange(schedule.num_steps) * scale
    elif name.startswith("edm"):
        expected = 1000 * torch.log(t / 0.002) / math.log(80 / 0.002)
    else:
        expected = 1000 * t
    torch.testing.assert_close(schedule.clock(t), expected.double(), rtol=1e-13, atol=1e-12)


# The cosine's last beta is clipped when it is discrete: see its own test.
BOTH = [name.removesuffix("-continuous") for name in PLAIN if name.endswith("-continuous") and "cosine-" not in name]


@pytest.mark.parametrize("rescalings", [(), ("input_scaling",), ("resolution_shift",)])
@pytest.mark.parametrize("option", BOTH)
@pytest.mark.parametrize("steps", [7, 1000])
def test_discrete_steps_lie_on_the_continuous_curve(option, steps, rescalings):
    continuous = schedule_of(option, rescalings, num_steps=None)
    discrete = schedule_of(option, rescalings, num_steps=steps)
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    u = t / steps
    if option == "ve":  # sigma_1 = sigma_min, so that T - 1 steps lie between the ends
        u = (t - 1) / (steps - 1)
        t, u = t[1:], u[1:]
    torch.testing.assert_close(discrete(t).ratio, continuous(u).ratio, rtol=1e-12, atol=0)
    torch.testing.assert_close(discrete(t).sigma, continuous(u).sigma, rtol=1e-12, atol=0)
    if issubclass(kind(discrete), CurveSchedule):
        torch.testing.assert_close(discrete.rate(t).sigma * steps, continuous.rate(u).sigma, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(discrete.rate(t).alpha * steps, continuous.rate(u).alpha, rtol=1e-12, atol=1e-14)
