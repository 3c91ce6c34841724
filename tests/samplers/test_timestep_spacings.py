import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EDMEulerScheduler, EulerDiscreteScheduler

from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.errors import OptionError, UserError
from langevin.samplers.timestep_spacing import (
    ExplicitSpacing,
    Karras,
    Leading,
    LogSNR,
    QuadraticSpacing,
    Trailing,
    UniformSpacing,
    apart,
)

DISCRETE = [UniformSpacing(), Trailing(), Leading(), QuadraticSpacing(), Karras(), LogSNR()]
CONTINUOUS = [UniformSpacing(), Trailing(), QuadraticSpacing(), Karras(), LogSNR()]
FIFTY, THOUSAND, THREE_HUNDRED = Cosine(50), Linear(1000), Linear(300)
SOME_STEPS = [1, 2, 3, 7, 10, 16, 20, 33, 48, 50, 99, 100, 250, 333, 500, 501, 999, 1000]


def name(part) -> str:
    return type(part).__name__


def is_half(value: Fraction) -> bool:
    return value.denominator == 2


@pytest.mark.parametrize("timestep_spacing", DISCRETE, ids=name)
@pytest.mark.parametrize(
    ("schedule", "all_steps"),
    [
        (FIFTY, range(1, 51)),
        (THOUSAND, SOME_STEPS),
        (THREE_HUNDRED, range(1, 301, 7)),
        (VE(30), range(1, 31)),
        *[(Cosine(n), range(1, n + 1)) for n in range(1, 8)],
    ],
    ids=["50", "1000", "300", "ve 30", *"1234567"],
)
def test_discrete_times_are_whole_and_fall_to_zero_without_repeats(timestep_spacing, schedule, all_steps):
    for steps in all_steps:
        times = timestep_spacing(schedule, steps)
        assert (times.dtype, times.shape) == (torch.float64, (steps + 1,))
        assert torch.equal(times, times.round())
        assert (times.diff() < 0).all(), steps
        assert times[-1] == 0
        assert times[0] <= schedule.t_max
        if not isinstance(timestep_spacing, Leading):
            assert times[0] == schedule.t_max


@pytest.mark.parametrize("timestep_spacing", DISCRETE, ids=name)
@pytest.mark.parametrize("schedule", [FIFTY, Linear(30), VE(50), Cosine(1), VE(2)], ids=name)
def test_all_steps_are_every_time(timestep_spacing, schedule):
    every = list(range(schedule.num_steps, -1, -1))
    assert timestep_spacing(schedule, None).tolist() == every
    assert timestep_spacing(schedule, schedule.num_steps).tolist() == every


@pytest.mark.parametrize("timestep_spacing", CONTINUOUS, ids=name)
@pytest.mark.parametrize("schedule", [VP(), VE(), EDMSchedule(), Cosine(None)], ids=name)
def test_continuous_times_fall_from_the_last_to_zero(timestep_spacing, schedule):
    for steps in (1, 2, 3, 10, 50, 1000):
        times = timestep_spacing(schedule, steps)
        assert (times.dtype, times.shape) == (torch.float64, (steps + 1,))
        assert (times.diff() < 0).all(), steps
        assert times[0] == pytest.approx(schedule.t_max, rel=1e-7)
        assert times[0] <= schedule.t_max
        assert times[-1] == 0


@pytest.mark.parametrize(
    ("timestep_spacing", "power"), [(Trailing(), 1), (QuadraticSpacing(), 2)], ids=["Trailing", "Quadratic"]
)
def test_times_are_the_fractions_rounded(timestep_spacing, power):
    for schedule, all_steps in ((FIFTY, range(1, 51)), (THOUSAND, SOME_STEPS)):
        for steps in all_steps:
            times = timestep_spacing(schedule, steps).tolist()
            for k, time in zip(range(steps, 0, -1), times, strict=False):
                exact = schedule.num_steps * Fraction(k, steps) ** power
                allowed = {int(exact), int(exact) + 1} if is_half(exact) else {round(exact)}
                assert time in {max(k, value) for value in allowed}


SPACINGS = {"linspace": UniformSpacing(), "trailing": Trailing(), "leading": Leading()}


@pytest.mark.parametrize(("spacing", "timestep_spacing"), SPACINGS.items(), ids=SPACINGS)
@pytest.mark.parametrize("steps", [steps for steps in SOME_STEPS if steps > 1])
def test_spacing_is_diffusers(steps, spacing, timestep_spacing):
    """But for halves: there numpy rounds indices 0..999 to even ones, we the times 1..1000 that they stand for."""
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=0)
    theirs.set_timesteps(steps)
    ours, theirs = timestep_spacing(THOUSAND, steps)[:-1].tolist(), (theirs.timesteps + 1).tolist()[:steps]
    for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        exact = 1000 - Fraction(999 * k, steps - 1) if spacing == "linspace" else 1000 - Fraction(1000 * k, steps)
        assert a == b or (spacing != "leading" and is_half(exact) and abs(a - b) == 1)


@pytest.mark.parametrize("steps", [2, 7, 50, 999])
@pytest.mark.parametrize("offset", [1, 2])
def test_the_offset_is_diffusers(steps, offset):
    spacing = Leading(offset, stop_at_first=True)
    if 1000 // steps * (steps - 1) + offset > 999:
        with pytest.raises(OptionError, match="offset is 2; allowed: at most 1 with 999 of the schedule's 1000 steps"):
            spacing(THOUSAND, steps)
        return
    theirs = DDIMScheduler(timestep_spacing="leading", steps_offset=offset)
    theirs.set_timesteps(steps)
    assert spacing(THOUSAND, steps).tolist() == [*(theirs.timesteps + 1).tolist(), 1]


def test_one_step_is_from_the_last_time():
    for timestep_spacing in (UniformSpacing(), Trailing(), QuadraticSpacing(), Karras(), LogSNR()):
        assert timestep_spacing(THOUSAND, 1).tolist() == [1000, 0]
    assert Leading()(THOUSAND, 1).tolist() == [1, 0]  # as diffusers has it


def test_karras_levels_are_edms():
    """EDM, equation 5."""
    n, rho = 18, 7
    i = np.arange(n)
    expected = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(Karras()(EDMSchedule(), n)[:-1], expected, rtol=1e-12)
    for schedule in (EDMSchedule(), VP(), VE()):
        ratios = schedule(Karras(rho=3.0, sigma_min=0.1, sigma_max=30.0)(schedule, 9)[:-1]).ratio
        i = np.arange(9)
        expected = (30 ** (1 / 3) + i / 8 * (0.1 ** (1 / 3) - 30 ** (1 / 3))) ** 3
        np.testing.assert_allclose(ratios, expected, rtol=1e-9)


@pytest.mark.parametrize("steps", [2, 5, 18, 40])
def test_karras_levels_are_diffusers(steps):
    theirs = EDMEulerScheduler()
    theirs.set_timesteps(steps)
    np.testing.assert_allclose(Karras()(EDMSchedule(), steps), theirs.sigmas, rtol=1e-6)


@pytest.mark.parametrize("steps", [5, 10, 25])
def test_karras_times_of_a_discrete_schedule_are_diffusers_rounded(steps):
    theirs = EulerDiscreteScheduler(use_karras_sigmas=True)
    theirs.set_timesteps(steps)
    times = Karras()(THOUSAND, steps)[:-1]
    # diffusers takes the real times between the steps by interpolating log sigma, ours log alpha.
    near = np.abs(times.numpy() - (theirs.timesteps.numpy() + 1))
    crowded = torch.arange(steps, 0, -1) >= times
    assert near[~crowded.numpy()].max() <= 0.51


@pytest.mark.parametrize("schedule", [VP(), VE(), EDMSchedule()], ids=name)
def test_log_snr_rises_evenly(schedule):
    first, last = torch.tensor([schedule.t_max, schedule.t_min], dtype=torch.float64)
    log_snr = schedule(LogSNR()(schedule, 12)[:-1]).log_snr
    expected = np.linspace(float(schedule(first).log_snr), float(schedule(last).log_snr), 12)
    np.testing.assert_allclose(log_snr, expected, rtol=0, atol=1e-6)


def test_continuous_times():
    assert UniformSpacing()(EDMSchedule(0.5, 80.5), 5).tolist() == [80.5, 60.5, 40.5, 20.5, 0.5, 0.0]
    assert Trailing()(EDMSchedule(), 4).tolist() == [80.0, 60.0, 40.0, 20.0, 0.0]
    assert QuadraticSpacing()(EDMSchedule(), 4).tolist() == [80.0, 45.0, 20.0, 5.0, 0.0]
    assert ExplicitSpacing([80.0, 7.5])(EDMSchedule(), None).tolist() == [80.0, 7.5, 0.0]
    with pytest.raises(UserError, match="discrete"):
        Leading()(EDMSchedule(), 4)


def test_explicit_times_of_a_discrete_schedule_are_rounded():
    assert ExplicitSpacing([1000.0, 500.4, 9.6, 9.5])(THOUSAND, 4).tolist() == [1000, 500, 11, 10, 0]
    assert ExplicitSpacing([900, 0.2])(THOUSAND, None).tolist() == [900, 1, 0]


@pytest.mark.parametrize("timestep_spacing", [*DISCRETE, UniformSpacing()], ids=name)
@pytest.mark.parametrize(
    ("schedule", "steps"), [(FIFTY, 0), (FIFTY, -1), (FIFTY, 51), (EDMSchedule(), None), (EDMSchedule(), 0)]
)
def test_steps_that_there_cannot_be_are_refused(timestep_spacing, schedule, steps):
    with pytest.raises(UserError, match="steps"):
        timestep_spacing(schedule, steps)


@pytest.mark.parametrize(
    "times", [[], [0.0], [5.0, 0.0], [5.0, 5.0], [1.0, 2.0], [5.0, -1.0], [5.0, float("nan"), 1.0]]
)
def test_explicit_times_that_do_not_fall_are_refused(times):
    with pytest.raises(UserError, match=r"times is .*; allowed: falling"):
        ExplicitSpacing(times)


def test_explicit_times_that_do_not_suit_the_run_are_refused():
    with pytest.raises(UserError, match=r"steps is 5; allowed: 2, as timestep_spacing\.times has"):
        ExplicitSpacing([9.0, 3.0])(THOUSAND, 5)
    with pytest.raises(UserError, match=r"^times is \[1001, 3\]; allowed: at most the schedule's 1000"):
        ExplicitSpacing([1001, 3])(THOUSAND, None)
    with pytest.raises(UserError, match=r"^times is \[inf, 3\]; allowed: at most the schedule's 80"):
        ExplicitSpacing([float("inf"), 3])(EDMSchedule(), None)
    with pytest.raises(UserError, match="at most the schedule's 2"):
        ExplicitSpacing([1.9, 1.5, 1.2])(VE(2), None)


@pytest.mark.parametrize("timestep_spacing", [Karras(), LogSNR(), Karras(sigma_max=50.0)], ids=name)
@pytest.mark.parametrize(
    "schedule", [FlowSchedule(), FlowSchedule(10), ZeroTerminalSNR(Linear()), ZeroTerminalSNR(VP())], ids=name
)
def test_even_steps_to_no_signal_are_refused(timestep_spacing, schedule):
    with pytest.raises(UserError, match="trace of signal"):
        timestep_spacing(schedule, 5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sigma_max": 81.0}, r"^sigma_max is 81\.0; allowed: the schedule's 0\.002 to 80"),
        ({"sigma_max": 0.001}, r"^sigma_max is 0\.001"),
        ({"sigma_min": 0.001}, r"^sigma_min is 0\.001"),
        ({"sigma_min": 100.0}, r"^sigma_min is 100\.0"),
    ],
)
def test_levels_beyond_the_schedules_are_refused(parameters, message):
    with pytest.raises(UserError, match=message):
        Karras(**parameters)(EDMSchedule(), 5)


def test_levels_the_wrong_way_round_are_refused():
    with pytest.raises(UserError, match=r"sigma_max is 1\.0; allowed: above sigma_min \(2\.0\)"):
        Karras(sigma_min=2.0, sigma_max=1.0)


@pytest.mark.parametrize("num_steps", range(1, 7))
def test_equal_times_are_moved_apart_as_little_as_may_be(num_steps):
    """Against every sequence that there is."""
    for length in range(1, num_steps + 1):
        choices = [list(c) for c in itertools.combinations(range(num_steps, 0, -1), length)]
        for times in itertools.combinations_with_replacement(range(num_steps, 0, -1), length):
            moved = apart(torch.tensor(times, dtype=torch.float64), num_steps).tolist()
            assert moved in choices
            least = min(max(abs(a - b) for a, b in zip(choice, times, strict=True)) for choice in choices)
            assert max(abs(a - b) for a, b in zip(moved, times, strict=True)) == least, times
            if len(set(times)) == length:
                assert moved == list(times)
