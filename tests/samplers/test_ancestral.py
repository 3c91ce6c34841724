import numpy as np
import pytest
from diffusers import DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from helpers.exact import gaussian
from sampler_helpers import Written, assert_same_path, denoiser, in_float64, our_path

from langevin.diffusion.parameterization import Eps, V
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Leading, QuadraticSpacing, Trailing

VARIANCES = {"fixed_small": FixedSmall(), "fixed_large": FixedLarge()}


def their_path(monkeypatch, scheduler, network, steps, noise):
    scheduler = in_float64(scheduler)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *shape, **_: noise())
    if steps is not None:
        scheduler.set_timesteps(steps)
    x = noise()
    path, images = [x], []
    for index in scheduler.timesteps:
        output = network(x, index.double().expand(len(x)))
        step = scheduler.step(output, int(index), x)
        x = step.prev_sample
        path.append(x)
        images.append(step.pred_original_sample)
    return path, images


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("steps", [pytest.param(None, marks=pytest.mark.slow), 50])
def test_path_is_diffusers(monkeypatch, variance, clip, steps):
    model = denoiser(Linear(), variance=VARIANCES[variance])
    ours = our_path(Ancestral(Leading(), Static() if clip else None, steps), model, Written())
    scheduler = DDPMScheduler(variance_type=variance, clip_sample=clip, timestep_spacing="leading")
    theirs, _ = their_path(monkeypatch, scheduler, model.network, steps, Written())
    assert_same_path(ours, theirs)


@pytest.mark.parametrize(("parameterization", "name"), [(Eps(), "epsilon"), (V(), "v_prediction")])
def test_path_is_diffusers_on_the_cosine_schedule(monkeypatch, parameterization, name):
    model = denoiser(Cosine(), parameterization)
    ours = our_path(Ancestral(Leading(), Static(), 100), model, Written())
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=name, clip_sample=True)
    theirs, _ = their_path(monkeypatch, scheduler, model.network, 100, Written())
    assert_same_path(ours, theirs)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_trailing_path_is_diffusers_but_for_the_noise_of_its_last_step(monkeypatch, variance):
    """Where the last step is long, diffusers still adds noise to the finished image; ours adds none, as DDPM."""
    model = denoiser(Linear(), variance=VARIANCES[variance])
    ours = our_path(Ancestral(Trailing(), Static(), 50), model, Written())
    scheduler = DDPMScheduler(variance_type=variance, clip_sample=True, timestep_spacing="trailing")
    theirs, images = their_path(monkeypatch, scheduler, model.network, 50, Written())
    assert_same_path(ours, [*theirs[:-1], images[-1]])


@pytest.mark.parametrize("clip", [True, False])
def test_learned_variance_is_diffusers(monkeypatch, clip):
    model = denoiser(Linear(), variance=LearnedRange(), extra=2)
    ours = our_path(Ancestral(Leading(), Static() if clip else None, 50), model, Written())
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=clip, timestep_spacing="leading")
    theirs, _ = their_path(monkeypatch, scheduler, model.network, 50, Written())
    assert_same_path(ours, theirs)


@pytest.mark.parametrize(
    "timestep_spacing", [Leading(), Trailing(), QuadraticSpacing()], ids=lambda g: type(g).__name__
)
def test_small_variance_is_ddim_with_eta_one(timestep_spacing):
    """DDIM (Song et al. 2021), section 4.1."""
    model = denoiser(Linear())
    ancestral = our_path(Ancestral(timestep_spacing, Static(), 30), model, Written())
    assert_same_path(ancestral, our_path(DDIM(timestep_spacing, Static(), 30, eta=1.0), model, Written()))


def propagated(betas: np.ndarray, mean: float, std: float, large: bool) -> tuple[float, float]:
    """The mean and variance that DDPM's algorithm 2 ends with for the exact denoiser of N(mean, std^2)."""
    bar = np.concatenate([[1], np.cumprod(1 - betas)])
    m, v = 0.0, 1.0
    for t in range(len(betas), 0, -1):
        beta, now, before = betas[t - 1], bar[t], bar[t - 1]
        gain = np.sqrt(now) * std**2 / (now * std**2 + 1 - now)  # x_hat = offset + gain x_t
        offset = mean - gain * np.sqrt(now) * mean
        of_x = np.sqrt(before) * beta / (1 - now)
        of_x_t = np.sqrt(1 - beta) * (1 - before) / (1 - now)
        m = of_x * (offset + gain * m) + of_x_t * m
        v = (of_x * gain + of_x_t) ** 2 * v
        if t > 1:
            v += beta if large else (1 - before) / (1 - now) * beta
    return m, v


@pytest.mark.parametrize("variance", ["fixed_small", pytest.param("fixed_large", marks=pytest.mark.slow)])
def test_gaussian_data_come_out_with_their_mean_and_variance(variance):
    mean, std, n = 0.3, 0.5, 8000
    betas = np.linspace(1e-4, 0.02, 1000)
    expected_mean, expected_variance = propagated(betas, mean, std, large=variance == "fixed_large")
    assert expected_mean == pytest.approx(mean, abs=0.005)
    assert expected_variance == pytest.approx(std**2, rel=0.03)
    model = gaussian(Linear(), mean, std, VARIANCES[variance])
    x = Ancestral(Trailing())(model, Written((n, 1, 1, 1), seed=1)).flatten()
    assert x.mean().item() == pytest.approx(expected_mean, abs=3.5 * std / n**0.5)
    assert x.var().item() == pytest.approx(expected_variance, rel=3.5 * (2 / n) ** 0.5)


def test_a_coarse_path_of_gaussians_is_the_propagated_one():
    """With few steps the two variances come out differently, by an amount that can be measured."""
    bar = np.cos((np.arange(11) / 10 + 0.008) / 1.008 * np.pi / 2) ** 2
    betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    results = {}
    for name, variance in VARIANCES.items():
        expected_mean, expected_variance = propagated(betas, 0.3, 0.5, large=name == "fixed_large")
        model = gaussian(Cosine(10), 0.3, 0.5, variance)
        x = Ancestral(Trailing())(model, Written((40_000, 1, 1, 1), seed=2)).flatten()
        assert x.mean().item() == pytest.approx(expected_mean, abs=3.5 * (expected_variance / 40_000) ** 0.5)
        assert x.var().item() == pytest.approx(expected_variance, rel=3.5 * (2 / 40_000) ** 0.5)
        results[name] = expected_variance
    assert results["fixed_large"] > 1.2 * results["fixed_small"]


def test_noise_is_drawn_once_a_step_but_the_last():
    noise = Written()
    Ancestral(Leading(), steps=10)(denoiser(Linear()), noise)
    assert noise.calls == 10
