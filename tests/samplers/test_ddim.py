import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler
from helpers.draws import Given
from helpers.exact import gaussian
from sampler_helpers import Written, assert_same_path, denoiser, in_float64, our_path

from langevin.diffusion.parameterization import Eps, V
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.samplers.ddim import DDIM
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Leading, Trailing


def their_path(scheduler, network, steps, eta, noise):
    scheduler = in_float64(scheduler)
    scheduler.set_timesteps(steps)
    x = noise()
    path = [x]
    for index in scheduler.timesteps:
        output = network(x, index.double().expand(len(x)))
        last = index < 1000 // steps and scheduler.config.set_alpha_to_one
        x = scheduler.step(
            output,
            int(index),
            x,
            eta=eta,
            use_clipped_model_output=scheduler.config.clip_sample,
            variance_noise=torch.zeros_like(x) if last else noise() if eta > 0 else None,
        ).prev_sample
        path.append(x)
    return path


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("timestep_spacing", "spacing"), [(Leading(), "leading"), (Trailing(), "trailing")])
@pytest.mark.parametrize("steps", [10, 50])
def test_path_is_diffusers(eta, clip, timestep_spacing, spacing, steps):
    model = denoiser(Linear())
    ours = our_path(DDIM(timestep_spacing, Static() if clip else None, steps, eta), model, Written())
    scheduler = DDIMScheduler(clip_sample=clip, timestep_spacing=spacing, set_alpha_to_one=True, steps_offset=0)
    assert_same_path(ours, their_path(scheduler, model.network, steps, eta, Written()))


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("offset", "to_one"), [(0, False), (1, False), (1, True), (7, False)])
def test_path_with_an_offset_and_to_the_first_level_is_diffusers(eta, clip, offset, to_one):
    model = denoiser(Linear())
    spacing = Leading(offset, stop_at_first=not to_one)
    ours = our_path(DDIM(spacing, Static() if clip else None, 20, eta), model, Written())
    scheduler = DDIMScheduler(clip_sample=clip, set_alpha_to_one=to_one, steps_offset=offset)
    assert_same_path(ours, their_path(scheduler, model.network, 20, eta, Written()))
    plain = our_path(DDIM(Leading(), Static() if clip else None, 20, eta), model, Written())
    assert max(float((a - b).abs().max()) for a, b in zip(ours, plain, strict=True)) > 1e-4


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(("parameterization", "name"), [(Eps(), "epsilon"), (V(), "v_prediction")])
def test_path_is_diffusers_on_the_cosine_schedule(eta, parameterization, name):
    model = denoiser(Cosine(), parameterization)
    ours = our_path(DDIM(Leading(), Static(), 40, eta), model, Written())
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=name, clip_sample=True)
    assert_same_path(ours, their_path(scheduler, model.network, 40, eta, Written()))


def test_clipping_changes_this_path():
    model = denoiser(Linear())
    clipped, free = (DDIM(Leading(), how, 10)(model, Written()) for how in (Static(), None))
    assert clipped.abs().max() <= 1 < free.abs().max()


@pytest.mark.parametrize("schedule", [Linear(), Cosine()], ids=["linear", "cosine"])
def test_many_steps_are_the_exact_map_of_quantiles(schedule):
    """Data N(mean, std^2): the flow carries each quantile of x_T to the same quantile of x, and DDIM is Euler's."""
    mean, std = 0.3, 0.2
    start = torch.linspace(-3, 3, 13, dtype=torch.float64).reshape(-1, 1, 1, 1)
    alpha, sigma = (float(v) for v in schedule(torch.tensor(1000.0, dtype=torch.float64)))
    exact = mean + std * (start - alpha * mean) / math.sqrt(alpha**2 * std**2 + sigma**2)
    errors = []
    for steps in (125, 250, 500, 1000):
        sampler = DDIM(Trailing(), steps=steps)
        x = sampler(gaussian(schedule, mean, std), Given(start))
        errors.append(float((x - exact).abs().max()))
    assert errors[-1] < 0.01 * std * 3
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert all(0.8 < slope < 1.25 for slope in slopes), (errors, slopes)


def test_with_exploding_noise():
    """On EDM's schedule DDIM is Euler's method: x + (s - t) (x - D) / t, written out here."""
    mean, std = 0.5, 0.7
    x = start = torch.tensor([-2.0, 0.1, 1.5], dtype=torch.float64).reshape(3, 1, 1, 1)
    x = 80 * x
    times = [80.0, 60.0, 40.0, 20.0, 0.0]
    for t, s in pairwise(times):
        image = (std**2 * x + t**2 * mean) / (std**2 + t**2)
        x = x + (s - t) * (x - image) / t
    ours = DDIM(Trailing(), steps=4)(gaussian(EDMSchedule(), mean, std), Given(start))
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("eta", "calls"), [(0.0, 1), (0.5, 10), (1.0, 10)])
def test_noise_is_drawn_once_a_step_but_the_last(eta, calls):
    noise = Written()
    DDIM(Leading(), steps=10, eta=eta)(denoiser(Linear()), noise)
    assert noise.calls == calls
