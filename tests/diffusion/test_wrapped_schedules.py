"""The beginning of a schedule, and what a sampler's grid makes of it."""

import pytest
import torch
from diffusion_helpers import times

from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.schedules.wrapped import Until
from langevin.errors import OptionError
from langevin.samplers.timestep_spacing import Karras, LogSNR, Trailing, UniformSpacing

CUT = {
    "linear": (Linear(), 300.0, 300),
    "cosine": (Cosine(50), 1.0, 1),
    "vp": (VP(), 0.25, None),
    "flow": (FlowSchedule(), 0.5, None),
    "edm": (EDMSchedule(), 3.0, None),
}


@pytest.mark.parametrize(("schedule", "t_max", "num_steps"), CUT.values(), ids=CUT)
def test_it_ends_there_and_is_else_the_same(schedule, t_max, num_steps):
    until = Until(schedule, t_max)
    assert (until.t_min, until.t_max, until.num_steps) == (schedule.t_min, t_max, num_steps)
    t = times(schedule.t_min, t_max)
    assert torch.equal(until(t).alpha, schedule(t).alpha)
    assert torch.equal(until(t).sigma, schedule(t).sigma)
    assert torch.equal(until.clock(t), schedule.clock(t))
    torch.testing.assert_close(until.time_of(until(t).ratio), t, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "grid", [Trailing(), UniformSpacing(), Karras(), LogSNR()], ids=lambda grid: type(grid).__name__
)
@pytest.mark.parametrize(("schedule", "t_max"), [(Linear(), 300.0), (VP(), 0.25), (EDMSchedule(), 3.0)])
def test_a_grid_begins_where_it_ends(schedule, t_max, grid):
    visited = grid(Until(schedule, t_max), 6)
    assert (len(visited), float(visited[-1])) == (7, 0)
    assert float(visited[0]) == pytest.approx(t_max, rel=1e-9)
    assert (visited.diff() < 0).all()


def test_no_grid_takes_more_steps_than_are_left():
    assert Trailing()(Until(Linear(), 3.0), None).tolist() == [3, 2, 1, 0]
    with pytest.raises(OptionError, match="is 4; allowed: at least 1 and at most the schedule's 3"):
        Trailing()(Until(Linear(), 3.0), 4)
