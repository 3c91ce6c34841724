from fractions import Fraction

import pytest
import torch
from diffusers import DDIMScheduler
from sampler_helpers import Exploding

from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.errors import UserError
from langevin.samplers.grid import Leading, Quadratic, Uniform

GRIDS = [Uniform(), Leading(), Quadratic()]
FIFTY, THOUSAND, THREE_HUNDRED = Cosine(50), Linear(1000), Linear(300)
SOME_STEPS = [1, 2, 3, 7, 10, 16, 20, 33, 48, 50, 99, 100, 250, 333, 500, 501, 999, 1000]


def is_half(value: Fraction) -> bool:
    return value.denominator == 2


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize(
    ("schedule", "all_steps"),
    [(FIFTY, range(1, 51)), (THOUSAND, SOME_STEPS), (THREE_HUNDRED, range(1, 301)), (Cosine(1), [1])],
    ids=["50", "1000", "300", "1"],
)
def test_times_fall_to_zero_without_repeats(grid, schedule, all_steps):
    for steps in all_steps:
        times = grid(schedule, steps)
        assert (times.dtype, times.shape) == (torch.float64, (steps + 1,))
        assert torch.equal(times, times.round())
        assert (times.diff() < 0).all(), steps
        assert times[-1] == 0
        assert times[0] <= schedule.t_max
        if not isinstance(grid, Leading):
            assert times[0] == schedule.t_max


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: type(g).__name__)
def test_all_steps_are_every_time(grid):
    every = list(range(50, -1, -1))
    assert grid(FIFTY, None).tolist() == every
    assert grid(FIFTY, 50).tolist() == every


@pytest.mark.parametrize("grid", [Uniform(), Quadratic()], ids=lambda g: type(g).__name__)
def test_times_are_the_fractions_rounded(grid):
    power = 1 if isinstance(grid, Uniform) else 2
    for schedule, all_steps in ((FIFTY, range(1, 51)), (THOUSAND, SOME_STEPS)):
        for steps in all_steps:
            times = grid(schedule, steps).tolist()
            for k, time in zip(range(steps, 0, -1), times, strict=False):
                exact = schedule.num_steps * Fraction(k, steps) ** power
                allowed = {int(exact), int(exact) + 1} if is_half(exact) else {round(exact)}
                assert time in {max(k, value) for value in allowed}


@pytest.mark.parametrize("steps", SOME_STEPS)
def test_leading_is_diffusers_leading(steps):
    theirs = DDIMScheduler(timestep_spacing="leading", steps_offset=0)
    theirs.set_timesteps(steps)
    assert Leading()(THOUSAND, steps)[:-1].tolist() == (theirs.timesteps + 1).tolist()


@pytest.mark.parametrize("steps", SOME_STEPS)
def test_uniform_is_diffusers_trailing(steps):
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    ours, theirs = Uniform()(THOUSAND, steps)[:-1].tolist(), (theirs.timesteps + 1).tolist()[:steps]
    for k, a, b in zip(range(steps, 0, -1), ours, theirs, strict=True):
        # numpy's arange has rounding errors that decide the halves by chance.
        assert a == b or (is_half(Fraction(1000 * k, steps)) and abs(a - b) == 1)


def test_continuous_times():
    assert Uniform()(Exploding(), 4).tolist() == [80.0, 60.0, 40.0, 20.0, 0.0]
    assert Quadratic()(Exploding(), 4).tolist() == [80.0, 45.0, 20.0, 5.0, 0.0]
    with pytest.raises(UserError, match="discrete"):
        Leading()(Exploding(), 4)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize(
    ("schedule", "steps"), [(FIFTY, 0), (FIFTY, -1), (FIFTY, 51), (Exploding(), None), (Exploding(), 0)]
)
def test_refusals(grid, schedule, steps):
    with pytest.raises(UserError, match="steps"):
        grid(schedule, steps)
