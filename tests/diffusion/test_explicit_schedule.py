import numpy as np
import pytest
import torch

from langevin.diffusion.schedules.explicit import ExplicitSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.errors import UserError


def test_the_levels_are_those_of_its_betas():
    betas = [0.3, 0.05, 0.5]  # they need not rise
    schedule = ExplicitSchedule(betas)
    assert (schedule.num_steps, schedule.t_max) == (3, 3.0)
    alpha, sigma = schedule(torch.arange(4).double())
    expected = np.concatenate([[1.0], np.cumprod(1 - np.array(betas))])
    np.testing.assert_allclose(alpha.square().numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(sigma.square().numpy(), 1 - expected, atol=1e-15)


def test_another_schedules_betas_written_out():
    linear = Linear(50)
    t = torch.linspace(0, 50, 201, dtype=torch.float64)
    written = ExplicitSchedule(linear.betas.tolist())(t)
    assert all(torch.equal(own, other) for own, other in zip(written, linear(t), strict=True))


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [-0.1]])
def test_betas_outside_0_to_1(betas):
    with pytest.raises(UserError, match=r"betas (is \[\]; allowed|must lie strictly between 0 and 1)"):
        ExplicitSchedule(betas)
