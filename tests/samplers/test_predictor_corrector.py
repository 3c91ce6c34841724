import math
from itertools import pairwise

import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from diffusers.schedulers import scheduling_sde_ve
from helpers.draws import Given
from helpers.exact import gaussian
from sampler_helpers import Written, assert_same_path, denoiser, our_path

from langevin.diffusion.draws import SampleDraws
from langevin.diffusion.parameterization import Eps
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import FixedLarge, FixedSmall
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.predictor_corrector import PredictorCorrector
from langevin.samplers.sampler import Predictor
from langevin.samplers.timestep_spacing import Karras, LogSNR, Trailing


@pytest.mark.parametrize("corrector_steps", [1, 2])
@pytest.mark.parametrize("snr", [0.16, 0.05])
def test_path_is_diffusers(monkeypatch, corrector_steps, snr):
    """For an image alone: diffusers, as the source, takes the norms' mean over the batch."""
    steps, shape = 40, (1, 2, 4, 4)
    model = denoiser(VE(steps), variance=FixedLarge())
    sampler = PredictorCorrector(Trailing(), steps=None, corrector_steps=corrector_steps, snr=snr)
    ours = our_path(sampler, model, Written(shape))

    noise = Written(shape)
    monkeypatch.setattr(scheduling_sde_ve, "randn_tensor", lambda *_, **__: noise())
    scheduler = ScoreSdeVeScheduler(num_train_timesteps=steps, snr=snr, sigma_min=0.01, sigma_max=50.0)
    scheduler.discrete_sigmas = torch.exp(torch.linspace(math.log(0.01), math.log(50), steps, dtype=torch.float64))
    x = noise() * 50
    theirs = []
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.discrete_sigmas[-1 - i]

        def score(x, t=steps - i, sigma=sigma):
            theirs.append(x)
            clock = torch.full((1,), (t - 1) * 1000 / steps, dtype=torch.float64)
            return -model.network(x / torch.sqrt(1 + sigma**2), clock) / sigma

        for _ in range(corrector_steps):
            x = scheduler.step_correct(score(x), x).prev_sample
        step = scheduler.step_pred(score(x), t, x)
        x = step.prev_sample
    assert_same_path(ours, [*theirs, step.prev_sample_mean], 1e-6)  # a part of it is in float32


@pytest.mark.parametrize("t", [2, 400, 1000])
def test_langevin_step_is_score_sdes_for_preserved_variance(t):
    """Algorithm 5, whose a is 1 - beta_t for neighbouring times."""
    model = denoiser(Linear(beta_end=0.05))
    x_t, z = Written(seed=1)(), Written(seed=2)()
    time = torch.tensor(float(t), dtype=torch.float64)
    corrected = PredictorCorrector(Trailing(), snr=0.2).correct(Predictor(model, time), x_t, time, time - 1, Given(z))
    betas = torch.linspace(1e-4, 0.05, 1000, dtype=torch.float64)
    score = -model(x_t, time).eps / torch.sqrt(1 - torch.cumprod(1 - betas, 0)[t - 1])
    for i in range(len(x_t)):
        size = 2 * (1 - betas[t - 1]) * (0.2 * z[i].norm() / score[i].norm()) ** 2
        expected = x_t[i] + size * score[i] + torch.sqrt(2 * size) * z[i]
        torch.testing.assert_close(corrected[i], expected, rtol=0, atol=1e-12)


def test_without_a_corrector_it_is_ancestral_sampling():
    model = denoiser(Linear())
    expected = our_path(Ancestral(Trailing(), steps=20), model, Written())
    assert_same_path(
        our_path(PredictorCorrector(Trailing(), steps=20, corrector_steps=0), model, Written()), expected, 1e-15
    )


MEAN, STD = 0.3, 0.4


def propagated(schedule, times, snr, large):
    """The mean and variance, over images of very many pixels, of what comes out for data N(MEAN, STD^2).

    In such images the norms are those of the expectation, and each step is linear.
    """
    m, v = 0.0, schedule.prior_std**2
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = ([float(c) for c in schedule(time)] for time in (t, s))
        total = alpha_t**2 * STD**2 + sigma_t**2
        # eps = sigma_t (x_t - alpha_t MEAN) / total
        mean_square = sigma_t**2 * (v + (m - alpha_t * MEAN) ** 2) / total**2
        size = 2 * (alpha_t / alpha_s) ** 2 * snr**2 / mean_square * sigma_t**2
        m -= size * (m - alpha_t * MEAN) / total
        v = (1 - size / total) ** 2 * v + 2 * size
        # x = MEAN + gain (x_t - alpha_t MEAN), and x_s = of_x x + of_x_t x_t + noise
        gain, kept = alpha_t * STD**2 / total, (alpha_t / alpha_s)
        added = sigma_t**2 - kept**2 * sigma_s**2
        of_x, of_x_t = alpha_s * added / sigma_t**2, kept * sigma_s**2 / sigma_t**2
        m = of_x * (MEAN + gain * (m - alpha_t * MEAN)) + of_x_t * m
        v = (of_x * gain + of_x_t) ** 2 * v
        if s > 0:
            v += added if large else added * sigma_s**2 / sigma_t**2
    return m, v


RUNS = {
    "vp": (VP(), Trailing(), FixedLarge()),
    "vp small": (VP(), Trailing(), FixedSmall()),
    "linear": (Linear(), Trailing(), FixedSmall()),
    "ve": (VE(), LogSNR(), FixedSmall()),
    "edm": (EDMSchedule(), Karras(), FixedLarge()),
    "flow": (FlowSchedule(), Trailing(), FixedSmall()),
}


@pytest.mark.parametrize(
    ("schedule", "timestep_spacing", "variance"),
    [  # one of each variance and each kind of schedule, every day
        pytest.param(*run, id=name, marks=pytest.mark.slow if name in ("vp", "vp small", "flow") else ())
        for name, run in RUNS.items()
    ],
)
def test_gaussian_data_come_out_with_their_mean_and_variance(schedule, timestep_spacing, variance):
    large, number, pixels = isinstance(variance, FixedLarge), 16, 64 * 64
    few, many = (propagated(schedule, timestep_spacing(schedule, steps), 0.16, large) for steps in (60, 960))
    assert abs(few[0] - MEAN) < 0.01
    assert abs(many[0] - MEAN) < 0.002
    # Langevin steps of this length have a variance larger by 1 / (1 - snr^2); the rest is the predictor's and shrinks.
    assert many[1] == pytest.approx(STD**2 / (1 - 0.16**2), rel=0.006)
    assert propagated(schedule, timestep_spacing(schedule, 960), 0.03, large)[1] == pytest.approx(STD**2, rel=0.02)

    sampler = PredictorCorrector(timestep_spacing, steps=60)
    x = sampler(gaussian(schedule, MEAN, STD, variance), SampleDraws(0, range(number), (1, 64, 64)))
    n = number * pixels
    assert float(x.mean()) == pytest.approx(few[0], abs=4 * few[1] ** 0.5 / n**0.5 + 1e-3)
    assert float(x.var()) == pytest.approx(few[1], rel=4 * (2 / n) ** 0.5 + 2e-3)


def test_a_image_depends_on_no_other():
    model, sampler = denoiser(Linear()), PredictorCorrector(Trailing(), steps=10)

    def images(indices):
        noise = SampleDraws(3, indices, (2, 4, 4))
        return sampler(model, Given(lambda: noise.normal().double()))

    torch.testing.assert_close(images([5, 6, 7])[1:2], images([6]), rtol=0, atol=1e-12)


def test_a_prediction_of_no_noise_is_left_alone():
    """What a network that starts from zero makes of an image: there is no score, and so no scale."""

    class Silent:
        process = GaussianProcess(VP(), Eps())

        def __call__(self, x_t, t, cond=None):
            return Prediction(x_t / self.process.schedule(t).alpha, torch.zeros_like(x_t), torch.zeros_like(x_t), None)

    plain = Ancestral(Trailing(), steps=4)(Silent(), noise_of_every_other_call(Written()))
    assert plain.isfinite().all()
    torch.testing.assert_close(PredictorCorrector(Trailing(), steps=4)(Silent(), Written()), plain)


def noise_of_every_other_call(noise):
    """The prior's noise, then every second: what is left to the predictor when the corrector has its own."""
    first = True

    def source():
        nonlocal first
        if first:
            first = False
            return noise()
        noise()
        return noise()

    return Given(source)
