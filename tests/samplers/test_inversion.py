"""DDIM taken the other way: from images to the noise that they come from."""

import pytest
import torch
from diffusers import DDIMInverseScheduler
from helpers.draws import Given
from helpers.exact import Mixture, gaussian, gaussian_flow, slope
from sampler_helpers import Written, assert_same_path, denoiser, in_float64

from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.samplers.ddim import DDIM
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import ExplicitSpacing, Karras, Leading, LogSNR, Trailing

SCHEDULES = {
    "vp": (VP(), Trailing()),
    "linear": (Linear(), Trailing()),
    "flow": (FlowSchedule(), Trailing()),
    "edm": (EDMSchedule(), Karras()),
    "ve": (VE(sigma_min=1e-3), LogSNR()),
    "input_scaling": (InputScaling(Linear()), Trailing()),
}
IMAGES = torch.linspace(-0.9, 0.9, 8, dtype=torch.float64).reshape(2, 1, 2, 2)


@pytest.mark.parametrize(("schedule", "timestep_spacing"), SCHEDULES.values(), ids=SCHEDULES)
def test_inverting_and_sampling_give_the_images_back(schedule, timestep_spacing):
    model, errors = Mixture(schedule), {}
    for steps in (100, 200, 400):
        sampler = DDIM(timestep_spacing, steps=steps)
        noise = sampler.invert(model, IMAGES)
        errors[steps] = float((sampler(model, Given(noise)) - IMAGES).abs().max())
    assert slope(errors) == pytest.approx(1, abs=0.25), errors
    assert errors[400] < 0.05


@pytest.mark.parametrize(("schedule", "timestep_spacing"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_noise_of_a_gaussian_is_that_of_the_exact_flow(schedule, timestep_spacing):
    first, last = torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)
    exact = gaussian_flow(schedule, schedule(first).alpha * IMAGES, first, last) / schedule.prior_std
    errors = {}
    for steps in (100, 200, 400):
        noise = DDIM(timestep_spacing, steps=steps).invert(gaussian(schedule), IMAGES)
        errors[steps] = float((noise - exact).abs().max())
    assert slope(errors) == pytest.approx(1, abs=0.25), errors
    assert errors[400] < 0.05


def test_noise_of_data_is_standard_normal():
    """Images of the data's own mean and standard deviation become noise of mean 0 and standard deviation 1."""
    images = (0.3 + 0.4 * Written((4000, 1, 1, 1))()).double()
    noise = DDIM(Trailing(), steps=300).invert(gaussian(VP()), images)
    assert float(noise.mean()) == pytest.approx(0, abs=4 / 4000**0.5 + 0.01)
    assert float(noise.std()) == pytest.approx(1, abs=4 / 8000**0.5 + 0.02)


def test_path_is_diffusers():
    """It asks the network at the time that the step begins at; diffusers' pipelines at that where it ends."""
    model = denoiser(Linear())
    scheduler = in_float64(DDIMInverseScheduler(clip_sample=False, set_alpha_to_one=False))
    scheduler.initial_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(50)
    x = scheduler.alphas_cumprod[0].sqrt() * Written()()
    theirs = [x]
    for index in scheduler.timesteps[1:]:  # the first goes from the first time to itself
        x = scheduler.step(model.network(x, (index - 20).double().expand(2)), int(index), x).prev_sample
        theirs.append(x)
    ours = []
    sampler = DDIM(Leading(), steps=50)
    ours.append(sampler.invert(model, Written()(), on_prediction=lambda x_t, t, prediction: ours.append(x_t)))
    assert_same_path(ours, theirs)


def test_eta_and_thresholding_have_no_say():
    model = denoiser(Linear())
    plain = DDIM(Trailing(), None, 10).invert(model, IMAGES.expand(2, 2, 2, 2))
    assert torch.equal(plain, DDIM(Trailing(), Static(), 10, eta=1.0).invert(model, IMAGES.expand(2, 2, 2, 2)))


def test_walks_up_from_the_first_time_with_the_condition():
    asked = []

    class Listening(Mixture):
        def __call__(self, x_t, t, cond=None):
            asked.append((float(t), cond))
            return super().__call__(x_t, t, cond)

    cond = {"label": torch.tensor([1, 2])}
    DDIM(ExplicitSpacing([900.0, 500.0, 1.0]), steps=None).invert(Listening(Linear()), IMAGES, cond)
    assert [t for t, _ in asked] == [1.0, 500.0]
    assert all(given is cond for _, given in asked)
