import math

import numpy as np
import pytest
import torch

from langevin.diffusion.schedules.cosine import Cosine
from langevin.errors import UserError


def alpha_squared(schedule) -> np.ndarray:
    return schedule(torch.arange(schedule.num_steps + 1, dtype=torch.float64)).alpha.square().numpy()


def closed_form(num_steps: int, s: float) -> np.ndarray:
    """f(t) / f(0) as the paper's equation 17 has it, before any clipping."""
    f = [math.cos((t / num_steps + s) / (1 + s) * math.pi / 2) ** 2 for t in range(num_steps + 1)]
    return np.array(f) / f[0]


@pytest.mark.parametrize(("num_steps", "s"), [(10, 0.008), (300, 0.008), (1000, 0.008), (4000, 0.008), (100, 0.05)])
def test_alpha_squared_is_the_papers_up_to_the_clipped_step(num_steps, s):
    ours, paper = alpha_squared(Cosine(num_steps, s=s)), closed_form(num_steps, s)
    clipped = 1 - paper[1:] / paper[:-1] > 0.999
    first = int(clipped.argmax()) if clipped.any() else num_steps
    assert first == num_steps - 1  # with these arguments, only the last step
    np.testing.assert_allclose(ours[: first + 1], paper[: first + 1], rtol=1e-11, atol=1e-12)
    assert ours[-1] / ours[-2] == pytest.approx(0.001, rel=1e-11)


def test_beta_max_clips_every_larger_step():
    paper = closed_form(20, 0.008)
    betas = np.minimum(1 - paper[1:] / paper[:-1], 0.3)
    assert (betas == 0.3).sum() > 2
    expected = np.concatenate([[1], np.cumprod(1 - betas)])
    np.testing.assert_allclose(alpha_squared(Cosine(20, beta_max=0.3)), expected, rtol=1e-12)


@pytest.mark.parametrize("s", [0.008, 0.05])
def test_in_continuous_time_it_is_the_same_curve_but_for_a_trace_of_signal(s):
    u = np.linspace(0, 1, 501)
    schedule = Cosine(None, s=s)
    assert (schedule.num_steps, schedule.t_max) == (None, 1.0)
    alpha, sigma = schedule(torch.from_numpy(u))
    expected = 1e-9 + (1 - 1e-9) * closed_form(500, s)
    np.testing.assert_allclose(alpha.square().numpy(), expected, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(sigma.square().numpy(), 1 - expected, rtol=1e-12, atol=1e-15)


def test_steps_lie_on_the_continuous_curve_up_to_the_clipped_one():
    t = torch.linspace(1, 999, 999, dtype=torch.float64)
    gap = Cosine(1000)(t).alpha.square() - Cosine(None)(t / 1000).alpha.square()
    assert gap.abs().max() <= 1e-9


@pytest.mark.parametrize("arguments", [{"beta_max": 0.0}, {"beta_max": -0.1}, {"beta_max": 1.5, "s": 0.0}])
def test_betas_that_are_none_are_refused(arguments):
    with pytest.raises(UserError, match="between 0 and 1"):
        Cosine(**arguments)
