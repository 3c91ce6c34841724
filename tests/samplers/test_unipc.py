import itertools

import pytest
from diffusers import UniPCMultistepScheduler
from exponential_helpers import SCHEDULES, order, our_path, their_path
from sampler_helpers import Written, assert_same_path, denoiser

from langevin.diffusion.schedules.linear import Linear
from langevin.samplers.thresholding import Dynamic
from langevin.samplers.timestep_spacing import Leading, LogSNR, Trailing
from langevin.samplers.unipc import UniPC


def everyday(predictor, schedule):
    """On one schedule: `test_does_the_same_on_every_schedule` of test_exponential.py has the others."""
    return predictor != 2 and schedule == "vp"


@pytest.mark.parametrize(
    ("predictor", "variant", "schedule"),
    [
        pytest.param(predictor, variant, schedule, marks=() if everyday(predictor, schedule) else pytest.mark.slow)
        for predictor, variant, schedule in itertools.product([1, 2, 3], ["bh1", "bh2"], SCHEDULES)
    ],
)
def test_order_is_one_above_the_predictors(predictor, variant, schedule):
    sampler = UniPC(LogSNR(), None, None, predictor, variant, lower_order_final=False)
    assert order(sampler, SCHEDULES[schedule], (80, 160, 320)) == pytest.approx(predictor + 1, abs=0.25)


@pytest.mark.parametrize("timestep_spacing", [Trailing(), Leading(), LogSNR()], ids=["trailing", "leading", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 25])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("predictor", [1, 2, 3])
def test_path_is_diffusers(predictor, variant, steps, timestep_spacing):
    model, times = denoiser(Linear()), timestep_spacing(Linear(), steps)
    ours = our_path(UniPC(timestep_spacing, None, steps, predictor, variant), model, Written())
    scheduler = UniPCMultistepScheduler(solver_order=predictor, solver_type=variant, predict_x0=True)
    theirs = their_path(scheduler, model, times, Written())
    if variant == "bh1":
        assert theirs[-1].isnan().all(), "diffusers' last step with bh1 is infinity times zero"
        theirs[-1] = model(ours[-2], times[-2]).x
    assert_same_path(ours, theirs, 1e-12)


def test_thresholded_path_is_diffusers():
    model, times = denoiser(Linear()), Trailing()(Linear(), 12)
    ours = our_path(UniPC(Trailing(), Dynamic(0.9, 1.2), 12), model, Written())
    scheduler = UniPCMultistepScheduler(
        solver_order=3, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.2
    )
    assert_same_path(ours, their_path(scheduler, model, times, Written()))


def test_last_but_one_step_is_lowered_if_it_is_to_be():
    model = denoiser(Linear())
    lowered, full = (UniPC(Trailing(), None, 6, lower_order_final=value) for value in (True, False))
    ours, others = (our_path(sampler, model, Written()) for sampler in (lowered, full))
    assert_same_path(ours[:5], others[:5], 1e-13)
    assert (ours[5] - others[5]).abs().max() > 1e-6
