import numpy as np
import pytest
import torch
from diffusion_helpers import alpha_bar, linear_betas

from langevin.diffusion.schedules.linear import Linear
from langevin.errors import UserError


def alpha_squared(schedule) -> np.ndarray:
    return schedule(torch.arange(schedule.num_steps + 1, dtype=torch.float64)).alpha.square().numpy()


@pytest.mark.parametrize("num_steps", [30, 300, 1000, 4000])
def test_alpha_squared_is_the_product_of_one_minus_beta(num_steps):
    np.testing.assert_allclose(alpha_squared(Linear(num_steps)), alpha_bar(linear_betas(num_steps)), rtol=1e-12)


def test_without_rescaling_the_betas_are_taken_as_they_stand():
    betas = np.linspace(1e-4, 0.02, 300)
    np.testing.assert_allclose(alpha_squared(Linear(300, rescale=False)), alpha_bar(betas), rtol=1e-12)


def test_other_ends():
    betas = np.linspace(0.001, 0.1, 50)
    schedule = Linear(50, beta_start=0.001, beta_end=0.1, rescale=False)
    np.testing.assert_allclose(alpha_squared(schedule), alpha_bar(betas), rtol=1e-12)


def test_equals_ddpms_published_end_points():
    # log alpha_bar_T = sum log(1 - beta); DDPM reports L_T of about 1e-5 bits per dimension for it.
    schedule = Linear()
    assert schedule.num_steps == 1000
    assert schedule.t_max == 1000.0
    assert float(schedule(torch.tensor(1.0, dtype=torch.float64)).sigma ** 2) == pytest.approx(1e-4, rel=1e-12)
    assert float(schedule(torch.tensor(1000.0, dtype=torch.float64)).alpha ** 2) == pytest.approx(4.0358e-5, rel=1e-4)


def test_rescaling_reaches_about_the_same_noise():
    ends = [
        float(Linear(steps)(torch.tensor(float(steps), dtype=torch.float64)).log_snr) for steps in (500, 1000, 4000)
    ]
    assert max(ends) - min(ends) < 0.2
    plain = Linear(500, rescale=False)
    assert float(plain(torch.tensor(500.0, dtype=torch.float64)).log_snr) > max(ends) + 4


@pytest.mark.parametrize(
    "arguments",
    [
        {"beta_start": 0.02, "beta_end": 0.01},
        {"beta_start": 0.0},
        {"beta_start": -1e-4},
        {"beta_end": 1.0},
        {"num_steps": 20},  # 0.02 * 1000 / 20 = 1
        {"num_steps": 10},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(UserError):
        Linear(**arguments)
