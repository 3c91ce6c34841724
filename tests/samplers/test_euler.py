import pytest
import torch
from diffusers import EDMEulerScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from sampler_helpers import Written, assert_same_path, denoiser, our_path, our_path_over_alpha, sigma_path

from langevin.diffusion import parameterization as predicted
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.samplers.euler import Euler
from langevin.samplers.timestep_spacing import ExplicitSpacing, Karras, Leading, Trailing, UniformSpacing

# These schedulers of diffusers compute in float32, whatever they are given.
SINGLE = 2e-6


@pytest.mark.parametrize(
    ("timestep_spacing", "spacing", "steps"),
    [(UniformSpacing(), "linspace", 38), (Leading(), "leading", 50), (Trailing(), "trailing", 40)],
)
@pytest.mark.parametrize(("parameterization", "name"), [(predicted.Eps(), "epsilon"), (predicted.V(), "v_prediction")])
def test_path_is_diffusers(timestep_spacing, spacing, steps, parameterization, name):
    model = denoiser(Linear(), parameterization)
    ours = our_path_over_alpha(Euler(timestep_spacing, steps=steps), model, Written())
    scheduler = EulerDiscreteScheduler(timestep_spacing=spacing, prediction_type=name)
    assert_same_path(ours, sigma_path(scheduler, model.network, steps, ours[0]), SINGLE)


def test_path_on_edms_schedule_is_diffusers():
    model = denoiser(EDMSchedule(), predicted.EDMParameterization())
    ours = our_path(Euler(Karras(), steps=30), model, Written())
    scheduler = EDMEulerScheduler()
    scheduler.set_timesteps(30)
    x = ours[0]
    theirs = [x]
    for c_noise in scheduler.timesteps:
        output = model.network(scheduler.scale_model_input(x, c_noise), c_noise.double().expand(len(x)))
        x = scheduler.step(output, c_noise, x).prev_sample
        theirs.append(x)
    assert_same_path(ours, theirs, 1e-5)


def test_path_on_the_flow_schedule_is_diffusers():
    model = denoiser(FlowSchedule(), predicted.FlowParameterization())
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(25)
    timestep_spacing = ExplicitSpacing(scheduler.sigmas[:-1].tolist())
    ours = our_path(Euler(timestep_spacing, steps=25), model, Written())
    x = ours[0]
    theirs = [x]
    for t in scheduler.timesteps:
        # As ours, this network is given images of unit variance.
        c_in = ((1 - t / 1000) ** 2 + (t / 1000) ** 2).rsqrt().double()
        x = scheduler.step(model.network(c_in * x, t.double().expand(len(x))), t, x).prev_sample
        theirs.append(x)
    assert_same_path(ours, theirs, 1e-5)
    assert torch.equal(ours[0], Written()())
