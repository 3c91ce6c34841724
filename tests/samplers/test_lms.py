import numpy as np
import pytest
import torch
from diffusers import LMSDiscreteScheduler
from numpy.polynomial import Polynomial
from sampler_helpers import Written, assert_same_path, denoiser, our_path_over_alpha, sigma_path

from langevin.diffusion.parameterization import Eps, V
from langevin.diffusion.schedules.linear import Linear
from langevin.samplers.lms import LMS, mean_weights
from langevin.samplers.timestep_spacing import Leading, Trailing, UniformSpacing


@pytest.mark.parametrize(
    ("timestep_spacing", "spacing", "steps"),
    [(UniformSpacing(), "linspace", 38), (Leading(), "leading", 50), (Trailing(), "trailing", 40)],
)
@pytest.mark.parametrize(("parameterization", "name"), [(Eps(), "epsilon"), (V(), "v_prediction")])
def test_path_is_diffusers(timestep_spacing, spacing, steps, parameterization, name):
    model = denoiser(Linear(), parameterization)
    ours = our_path_over_alpha(LMS(timestep_spacing, steps=steps), model, Written())
    scheduler = LMSDiscreteScheduler(timestep_spacing=spacing, prediction_type=name)
    assert_same_path(ours, sigma_path(scheduler, model.network, steps, ours[0]))


@pytest.mark.parametrize(
    "weights", [[1], [3, -1], [23, -16, 5], [55, -59, 37, -9]], ids=["order 1", "order 2", "order 3", "order 4"]
)
def test_weights_of_equal_steps_are_adams_and_bashforths(weights):
    n = len(weights)
    nodes = [10.0 + 2 * n - 2 * i for i in range(n)]
    ours = mean_weights(nodes, nodes[-1], nodes[-1] - 2)
    np.testing.assert_allclose(ours, np.array(weights[::-1]) / sum(weights), rtol=1e-12)


@pytest.mark.parametrize("end", [0.0, 0.3, 9.0])
@pytest.mark.parametrize("nodes", [[3.0], [80.0, 1.0], [5.0, 2.0, 0.4], [157.0, 9.0, 1.2, 0.5], [4.0, 3.9, 3.0, 1.0]])
def test_weights_integrate_every_polynomial_that_they_can(nodes, end):
    weights = mean_weights(nodes, nodes[-1], end).numpy()
    for degree in range(len(nodes)):
        power = Polynomial.basis(degree)
        mean = power.integ(lbnd=nodes[-1])(end) / (end - nodes[-1])
        assert weights @ power(np.array(nodes)) == pytest.approx(mean, rel=1e-9, abs=1e-9)


def test_keeps_no_more_slopes_than_it_needs():
    lengths = []

    class Watched(LMS):
        def step(self, *arguments):
            x, history = super().step(*arguments)
            lengths.append(len(history))
            assert all(isinstance(tau, torch.Tensor) for tau, _ in history)
            return x, history

    Watched(Trailing(), steps=6, order=3)(denoiser(Linear()), Written())
    assert lengths == [1, 2, 3, 3, 3, 3]
