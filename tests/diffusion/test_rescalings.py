"""The rescalings against what their papers say of them."""

import math

import pytest
import torch
from conf_parts import PLAIN, trained
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusion_helpers import times

from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.resolution_shift import ResolutionShift
from langevin.diffusion.rescalings.unscaled_timesteps import UnscaledTimesteps
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.cosine_chen import CosineChen
from langevin.diffusion.schedules.cosine_log_snr import CosineLogSNR
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.quadratic import QuadraticSchedule
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.errors import UserError


@pytest.fixture(params=PLAIN.values(), ids=PLAIN.keys())
def schedule(request):
    return request.param


@pytest.mark.parametrize("b", [0.3, 1.0, 1.7])
def test_input_scaling_shifts_log_snr_by_twice_the_logarithm_of_b(schedule, b):
    t = trained(schedule)[:-1]  # at the last, no signal may be left
    shift = InputScaling(schedule, b)(t).log_snr - schedule(t).log_snr
    torch.testing.assert_close(shift, torch.full_like(t, 2 * math.log(b)), rtol=0, atol=1e-12)
    assert torch.equal(InputScaling(schedule, b)(t).sigma, schedule(t).sigma)


def test_input_scaling_is_chens():
    # Chen 2023, section 2.3: x_t = sqrt(gamma) b x + sqrt(1 - gamma) eps, whose variance is (b^2 - 1) gamma + 1.
    gamma = CosineChen()(times(0.1, 0.5, 0.9)).alpha.square()
    alpha, sigma = InputScaling(CosineChen(), 0.3)(times(0.1, 0.5, 0.9))
    torch.testing.assert_close(alpha**2 + sigma**2, (0.3**2 - 1) * gamma + 1, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("size", "reference"), [(160, 64), (32, 64), (64, 64), (512, 256)])
def test_resolution_shift_lowers_log_snr_by_twice_the_logarithm_of_the_sizes(schedule, size, reference):
    t = trained(schedule)[:-1]
    shift = ResolutionShift(schedule, size, reference)(t).log_snr - schedule(t).log_snr
    torch.testing.assert_close(shift, torch.full_like(t, -2 * math.log(size / reference)), rtol=0, atol=1e-12)


def test_resolution_shift_keeps_what_the_schedule_keeps():
    t = times(0.2, 0.5, 0.8)
    for schedule, kept in (
        (VP(), lambda alpha, sigma: alpha**2 + sigma**2),
        (FlowSchedule(), lambda alpha, sigma: alpha + sigma),
        (EDMSchedule(), lambda alpha, sigma: alpha),
        (VE(), lambda alpha, sigma: alpha),
    ):
        torch.testing.assert_close(kept(*ResolutionShift(schedule, 160)(t)), torch.ones_like(t), rtol=1e-14, atol=0)


def test_resolution_shift_is_simple_diffusions():
    # Simple diffusion, equation 3 and appendix A: logsnr = -2 log tan(pi t / 2) + 2 log(64 / d).
    t = times(0.2, 0.5, 0.8)
    first, last = (math.atan(math.exp(-end / 2)) for end in (15, -15))
    expected = -2 * torch.log(torch.tan(first + t * (last - first))) + 2 * math.log(64 / 512)
    torch.testing.assert_close(ResolutionShift(CosineLogSNR(), 512, 64)(t).log_snr, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(("size", "reference"), [(192, 64), (1024, 256), (32, 64)])
def test_resolution_shift_on_the_flow_is_stable_diffusion_3s(size, reference):
    shift = size / reference
    schedule = ResolutionShift(FlowSchedule(1000), size, reference)
    t = torch.arange(1, 1001, dtype=torch.float64)
    u = t / 1000
    sigma = shift * u / (1 + (shift - 1) * u)  # Esser et al. 2024, equation 23
    torch.testing.assert_close(schedule(t).sigma, sigma, rtol=1e-14, atol=0)
    torch.testing.assert_close(schedule(t).alpha, 1 - sigma, rtol=0, atol=1e-15)
    theirs = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift).sigmas.flip(0).double()
    torch.testing.assert_close(schedule(t).sigma, theirs, rtol=0, atol=1e-6)


def test_resolution_shift_without_a_bound_to_noise_starts_from_more():
    assert ResolutionShift(EDMSchedule(), 128).prior_std == pytest.approx(160)
    assert ResolutionShift(VE(), 128).prior_std == pytest.approx(100)
    assert ResolutionShift(VP(), 128).prior_std == ResolutionShift(FlowSchedule(), 128).prior_std == 1


def test_resolution_shift_undoes_input_scaling_where_alpha_is_kept():
    t = trained(EDMSchedule())
    both = InputScaling(ResolutionShift(EDMSchedule(), 32, 64), 0.5)(t)
    torch.testing.assert_close(both.ratio, EDMSchedule()(t).ratio, rtol=1e-15, atol=0)


@pytest.mark.parametrize("schedule", [Linear(), Linear(40), QuadraticSchedule(1000, 8.5e-4, 0.012), VP(1000)])
def test_zero_terminal_snr_equals_diffusers(schedule):
    t = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
    bar = schedule(t).alpha.square()
    betas = 1 - bar / torch.cat([times(1.0), bar[:-1]])
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(betas), 0).sqrt()
    alpha, sigma = ZeroTerminalSNR(schedule)(t)
    torch.testing.assert_close(alpha, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(sigma, torch.sqrt(1 - theirs**2), rtol=1e-10, atol=0)


PRESERVING = {name: schedule for name, schedule in PLAIN.items() if not name.startswith(("edm", "ve", "flow"))}


@pytest.mark.parametrize("schedule", PRESERVING.values(), ids=PRESERVING.keys())
def test_zero_terminal_snr_ends_without_signal_and_begins_as_before(schedule):
    rescaled = ZeroTerminalSNR(schedule)
    first = times(0.0 if schedule.num_steps is None else 1.0)
    assert rescaled(times(schedule.t_max)).alpha.item() == 0
    assert rescaled(times(schedule.t_max)).sigma.item() == pytest.approx(1, abs=1e-15)
    assert torch.equal(rescaled(first).alpha, schedule(first).alpha)
    torch.testing.assert_close(rescaled(first).sigma, schedule(first).sigma, rtol=1e-13, atol=0)
    t = trained(schedule)
    alpha, sigma = rescaled(t)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(t), rtol=1e-14, atol=0)


def test_zero_terminal_snrs_rate_at_its_first_step_is_the_one_from_below():
    schedule = ZeroTerminalSNR(Linear())
    slope = (schedule(times(1.0)).alpha - schedule(times(1 - 1e-6)).alpha) / 1e-6
    torch.testing.assert_close(schedule.rate(times(1.0)).alpha, slope, rtol=1e-6, atol=0)


def test_zero_terminal_snr_needs_two_steps():
    with pytest.raises(UserError, match="at least 2 steps"):
        ZeroTerminalSNR(Linear(1, rescale=False))


@pytest.mark.parametrize(
    "schedule", [EDMSchedule(), VE(), VE(40), FlowSchedule(), FlowSchedule(2), InputScaling(Linear(), 0.5)]
)
def test_zero_terminal_snr_needs_a_schedule_that_preserves_variance(schedule):
    with pytest.raises(UserError, match="preserves variance"):
        ZeroTerminalSNR(schedule)


@pytest.mark.parametrize("num_steps", [50, 1000, 4000])
def test_unscaled_timesteps_are_the_numbers_of_the_steps(num_steps):
    plain = Linear(num_steps)
    schedule = ZeroTerminalSNR(UnscaledTimesteps(plain))  # another rescaling leaves them
    t = torch.arange(1, num_steps + 1, dtype=torch.float64)
    assert torch.equal(schedule.clock(t), t - 1)
    assert torch.equal(plain.clock(t), schedule.clock(t)) == (num_steps == 1000)
    assert torch.equal(UnscaledTimesteps(plain)(t).alpha, plain(t).alpha)


def test_unscaled_timesteps_need_steps():
    with pytest.raises(UserError, match="needs a schedule with discrete steps"):
        UnscaledTimesteps(VP())
