"""The loop that all samplers share."""

import math

import pytest
import torch
from helpers.draws import Given
from helpers.exact import Mixture, gaussian, gaussian_flow, slope
from sampler_helpers import Written, denoiser

from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.resolution_shift import ResolutionShift
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.edm import EDMSchedule
from langevin.diffusion.schedules.flow import FlowSchedule
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.ve import VE
from langevin.diffusion.schedules.vp import VP
from langevin.diffusion.variance import LearnedRange
from langevin.errors import UserError
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M
from langevin.samplers.dpm_solver_sde import DPMSolver2MSDE
from langevin.samplers.dpm_solver_singlestep import DPMSolver1S, DPMSolver2S
from langevin.samplers.euler import Euler
from langevin.samplers.heun import Heun
from langevin.samplers.lms import LMS
from langevin.samplers.predictor_corrector import PredictorCorrector
from langevin.samplers.sampler import Predictor, Sampler, Start
from langevin.samplers.thresholding import Dynamic, Static
from langevin.samplers.timestep_spacing import ExplicitSpacing, Karras, Leading, Trailing
from langevin.samplers.unipc import UniPC


class Counting(Sampler[int]):
    """Does nothing but keep a record."""

    def __init__(self, timestep_spacing, steps=None) -> None:
        super().__init__(timestep_spacing, None, steps)
        self.record = []

    def step(self, denoise, x_t, t, s, state, draws):
        self.record.append((float(t), float(s), state, t.shape, t.dtype))
        return x_t + 1, (state or 0) + 10


def test_walks_the_spacing_and_hands_the_state_on():
    sampler = Counting(Trailing(), 4)
    x = sampler(gaussian(Linear(), 0.0, 1.0), Given(torch.zeros(1, 1, 2, 2)))
    assert [(t, s, state) for t, s, state, *_ in sampler.record] == [
        (1000.0, 750.0, None),
        (750.0, 500.0, 10),
        (500.0, 250.0, 20),
        (250.0, 0.0, 30),
    ]
    assert all(shape == () and dtype == torch.float64 for *_, shape, dtype in sampler.record)
    assert (x == 4).all()


def test_all_steps_by_default():
    sampler = Counting(Trailing())
    sampler(gaussian(Linear(300), 0.0, 1.0), Given(torch.zeros(1, 1, 2, 2)))
    assert len(sampler.record) == 300


@pytest.mark.parametrize("schedule", [Linear(), VP(), EDMSchedule()], ids=lambda s: type(s).__name__)
def test_from_the_prior_at_the_last_time_is_from_no_start(schedule):
    model, sampler = denoiser(schedule), DDIM(Trailing(), steps=5, eta=1.0)
    draws, t = Written(), torch.tensor(schedule.t_max, dtype=torch.float64)
    start = Start(model.process.prior(t, draws), schedule.t_max)
    assert torch.equal(sampler(model, draws, start=start), sampler(model, Written()))


@pytest.mark.parametrize(("schedule", "t"), [(Linear(), 400), (VP(), 0.4), (EDMSchedule(), 3.0)])
def test_a_start_is_where_the_walk_begins(schedule, t):
    """Samples of Gaussian data with noise come out as the exact flow takes them, from there on."""
    x_t, last = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(2, 1, 2, 2), torch.tensor(0.0).double()
    seen, errors = [], {}
    for steps in (50, 100, 200):
        seen.clear()
        x = DDIM(Trailing(), steps=steps)(
            gaussian(schedule), None, on_prediction=lambda *asked: seen.append(asked), start=Start(x_t, t)
        )
        assert (len(seen), float(seen[0][1])) == (steps, t)
        assert torch.equal(seen[0][0], x_t)
        exact = gaussian_flow(schedule, x_t, torch.tensor(t, dtype=torch.float64), last)
        errors[steps] = float((x - exact).abs().max())
    assert slope(errors) == pytest.approx(1, abs=0.2), errors


def test_starts_from_the_schedules_prior():
    seen = []
    noise = torch.tensor([[[[0.5, -1.0]]]], dtype=torch.float64)
    DDIM(Trailing(), steps=2)(
        gaussian(EDMSchedule(), 0.0, 1.0), Given(noise), on_prediction=lambda x_t, t, prediction: seen.append((x_t, t))
    )
    assert torch.equal(seen[0][0], 80 * noise)
    assert [float(t) for _, t in seen] == [80.0, 40.0]


def test_condition_reaches_the_model():
    asked = []

    class Listening(Mixture):
        def __call__(self, x_t, t, cond=None):
            asked.append(cond)
            return super().__call__(x_t, t, cond)

    cond = {"label": torch.tensor([1, 2])}
    Ancestral(Leading(), steps=3)(Listening(Linear()), Written(), cond)
    assert len(asked) == 3
    assert all(given is cond for given in asked)


def test_clipped_prediction_still_explains_the_noisy_image():
    schedule, t = Linear(), torch.tensor(600.0, dtype=torch.float64)
    model = denoiser(schedule)
    x_t = 3 * Written()()
    free, clipped = (Predictor(model, t, thresholding=how)(x_t, t) for how in (None, Static()))
    assert free.x.abs().max() > 1
    torch.testing.assert_close(clipped.x, free.x.clamp(-1, 1), rtol=0, atol=0)
    alpha, sigma = (float(v) for v in schedule(t))
    for prediction in (free, clipped):
        torch.testing.assert_close(alpha * prediction.x + sigma * prediction.eps, x_t, rtol=0, atol=1e-12)
    assert torch.equal(clipped.raw, free.raw)


def test_watcher_sees_the_clipped_prediction():
    images = []
    last = DDIM(Leading(), Static(), 5)(
        denoiser(Linear()), Written(), on_prediction=lambda x_t, t, prediction: images.append(prediction.x)
    )
    assert len(images) == 5
    assert max(x.abs().max() for x in images) <= 1
    torch.testing.assert_close(last, images[-1], rtol=0, atol=1e-14)


SAMPLERS = {
    "ancestral": (Ancestral, {}, 5),
    "ddim": (DDIM, {}, 5),
    "ddim, eta 1": (DDIM, {"eta": 1.0}, 5),
    "euler": (Euler, {}, 5),
    "heun": (Heun, {}, 9),
    "heun, churned": (Heun, {"s_churn": 2.0}, 9),
    "lms": (LMS, {}, 5),
    "predictor_corrector": (PredictorCorrector, {}, 10),
    "predictor_corrector, 3": (PredictorCorrector, {"corrector_steps": 3}, 20),
}
all_samplers = pytest.mark.parametrize(("sampler", "parameters", "evaluations"), SAMPLERS.values(), ids=SAMPLERS)


@all_samplers
def test_number_of_evaluations_of_five_steps(sampler, parameters, evaluations):
    seen = []
    sampler(Trailing(), steps=5, **parameters)(
        denoiser(Linear()), Written(), on_prediction=lambda x_t, t, prediction: seen.append(t)
    )
    assert len(seen) == evaluations


@all_samplers
def test_sampling_records_no_gradient(sampler, parameters, evaluations):
    model = denoiser(Linear())
    model.network.weight.requires_grad_()
    assert not sampler(Trailing(), steps=3, **parameters)(model, Written()).requires_grad


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "lms"])
@pytest.mark.parametrize("how", [Static(), Dynamic()], ids=["static", "dynamic"])
def test_thresholded_images_are_in_range(name, how):
    """The last step goes to the predicted image, but for the multistep method, which looks back."""
    (sampler, parameters, _), model = SAMPLERS[name], denoiser(Linear())
    free, kept = (sampler(Trailing(), thresholding, 5, **parameters)(model, Written()) for thresholding in (None, how))
    assert kept.abs().max() <= 1 + 1e-12
    assert free.abs().max() > 1.1


@all_samplers
@pytest.mark.parametrize("schedule", [FlowSchedule(), ZeroTerminalSNR(Linear())], ids=["flow", "zero_terminal_snr"])
def test_begins_without_any_signal(sampler, parameters, evaluations, schedule):
    x = sampler(Trailing(), steps=20, **parameters)(gaussian(schedule), Written((50, 2, 4, 4)))
    assert float(x.mean()) == pytest.approx(0.3, abs=0.05)
    assert float(x.std()) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("sampler", "parameters"),
    [
        *((sampler, parameters) for sampler, parameters, _ in SAMPLERS.values()),
        *((sampler, {}) for sampler in (DPMSolver1S, DPMSolver2S, DPMSolver2M, DPMSolver3M, DPMSolver2MSDE, UniPC)),
    ],
)
@pytest.mark.parametrize("offset", [0, 1])
def test_a_last_step_that_ends_at_the_first_time(sampler, parameters, offset):
    """Without an offset it has no length."""
    model, sigma = gaussian(Linear()), float(Linear()(torch.tensor(1.0, dtype=torch.float64)).sigma)
    at_first, at_data = (
        sampler(Leading(offset, stop), steps=20, **parameters)(model, Written((50, 2, 4, 4))) for stop in (True, False)
    )
    assert 0 < (at_first - at_data).abs().max() < 20 * sigma


def test_a_last_step_without_length_has_no_variance_to_learn():
    x = Ancestral(Leading(stop_at_first=True), steps=5)(denoiser(Linear(), variance=LearnedRange(), extra=2), Written())
    assert x.isfinite().all()


@all_samplers
def test_images_that_the_schedule_scales_come_out_as_they_were(sampler, parameters, evaluations):
    schedule = InputScaling(VP(), b=0.5)
    x = sampler(Trailing(), steps=60, **parameters)(gaussian(schedule), Written((50, 2, 4, 4)))
    assert float(x.mean()) == pytest.approx(0.3, abs=0.05)
    assert float(x.std()) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("schedule", "timestep_spacing", "std"),
    [
        (EDMSchedule(), Karras(sigma_max=20.0), 20.0),
        (VE(), ExplicitSpacing([0.5, 0.1]), math.sqrt(0.01 * 50)),
        (ResolutionShift(EDMSchedule(), 128), Karras(), 160.0),
        (ResolutionShift(EDMSchedule(), 128), ExplicitSpacing([30.0, 1.0]), 60.0),
        (VP(), ExplicitSpacing([0.9, 0.1]), 1.0),
        (FlowSchedule(10), Leading(), 1.0),
    ],
)
def test_noise_at_the_spacings_beginning_is_as_large_as_the_schedules_there(schedule, timestep_spacing, std):
    first = timestep_spacing(schedule, 2)[0]
    assert gaussian(schedule).process.prior_std(first) == pytest.approx(std, rel=1e-9)
    seen = []
    noise = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    sampler = DDIM(timestep_spacing, steps=2)
    sampler(gaussian(schedule), Given(noise), on_prediction=lambda x_t, t, prediction: seen.append(x_t))
    torch.testing.assert_close(seen[0], std * noise)


@pytest.mark.parametrize("steps", [0, -1])
@pytest.mark.parametrize("sampler", [Ancestral, DDIM, Euler, Heun, LMS, PredictorCorrector])
def test_too_few_steps_are_refused(sampler, steps):
    with pytest.raises(UserError, match="steps"):
        sampler(Leading(), steps=steps)(denoiser(Linear()), Written())
