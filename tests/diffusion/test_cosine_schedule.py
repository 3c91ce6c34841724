import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

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


@pytest.mark.parametrize("num_steps", [50, 1000])
def test_equals_diffusers_table(num_steps):
    theirs = DDPMScheduler(num_train_timesteps=num_steps, beta_schedule="squaredcos_cap_v2").alphas_cumprod.numpy()
    np.testing.assert_allclose(alpha_squared(Cosine(num_steps))[1:], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [{"num_steps": 0}, {"s": -0.001}, {"beta_max": 0.0}, {"beta_max": 1.0}, {"beta_max": 1.5}, {"beta_max": -0.1}],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(UserError):
        Cosine(**arguments)
