import pytest
from diffusers import FlowMatchHeunDiscreteScheduler, HeunDiscreteScheduler
from sampler_helpers import Written, assert_same_path, denoiser, our_path, our_path_over_alpha, sigma_path

from langevin.diffusion import parameterization as predicted
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.samplers.heun import Heun
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import ExplicitSpacing, Leading, Trailing, UniformSpacing


@pytest.mark.parametrize(
    ("timestep_spacing", "spacing", "steps"),
    [(UniformSpacing(), "linspace", 38), (Leading(), "leading", 50), (Trailing(), "trailing", 40)],
)
@pytest.mark.parametrize(("parameterization", "name"), [(predicted.Eps(), "epsilon"), (predicted.V(), "v_prediction")])
@pytest.mark.parametrize("clip", [True, False])
def test_path_is_diffusers(timestep_spacing, spacing, steps, parameterization, name, clip):
    model = denoiser(Linear(), parameterization)
    ours = our_path_over_alpha(Heun(timestep_spacing, Static() if clip else None, steps), model, Written())
    scheduler = HeunDiscreteScheduler(
        beta_start=1e-4, beta_end=0.02, timestep_spacing=spacing, prediction_type=name, clip_sample=clip
    )
    assert_same_path(ours, sigma_path(scheduler, model.network, steps, ours[0]))


def test_path_on_the_flow_schedule_is_diffusers():
    model = denoiser(FlowSchedule(), predicted.FlowParameterization())
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(25)
    timestep_spacing = ExplicitSpacing([*scheduler.sigmas[:1].tolist(), *scheduler.sigmas[1:-1:2].tolist()])
    ours = our_path(Heun(timestep_spacing, steps=25), model, Written())
    x = ours[0]
    theirs = [x]
    for t in scheduler.timesteps:
        # As ours, this network is given images of unit variance.
        c_in = ((1 - t / 1000) ** 2 + (t / 1000) ** 2).rsqrt().double()
        x = scheduler.step(model.network(c_in * x, t.double().expand(len(x))), t, x).prev_sample
        theirs.append(x)
    assert_same_path(ours, theirs, 1e-5)
