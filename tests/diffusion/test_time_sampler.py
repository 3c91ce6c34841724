import numpy as np
import pytest
import torch
from diffusion_helpers import Exploding, Flow
from scipy import stats

from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.time_sampler import Uniform


def test_discrete_times_are_one_to_t_equally_often():
    torch.manual_seed(0)
    t, importance = Uniform().sample(20_000, Cosine(10))
    assert (t.dtype, t.shape) == (torch.float64, (20_000,))
    values, counts = np.unique(t.numpy(), return_counts=True)
    assert values.tolist() == list(range(1, 11))
    assert stats.chisquare(counts).pvalue > 0.001
    assert torch.equal(importance, torch.ones(20_000, dtype=torch.float64))


@pytest.mark.parametrize("schedule", [Flow(), Exploding()])
def test_continuous_times_fill_the_clock(schedule):
    torch.manual_seed(0)
    t, importance = Uniform().sample(20_000, schedule)
    assert (t.dtype, t.shape) == (torch.float64, (20_000,))
    assert stats.kstest(t.numpy(), "uniform", args=(0, schedule.t_max)).pvalue > 0.001
    assert torch.equal(importance, torch.ones(20_000, dtype=torch.float64))


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, 1.0), (1 - 2**-53, 2**-53)])
def test_continuous_times_leave_out_zero_and_reach_the_end(monkeypatch, drawn, expected):
    monkeypatch.setattr(torch, "rand", lambda *size, dtype: torch.full(size, drawn, dtype=dtype))
    t, _ = Uniform().sample(3, Flow())
    assert t.tolist() == [expected] * 3


def test_draws_follow_the_global_seed():
    def draw(seed):
        torch.manual_seed(seed)
        return Uniform().sample(50, Cosine(1000))[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
