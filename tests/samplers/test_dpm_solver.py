import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, UniPCMultistepScheduler
from exponential_helpers import SCHEDULES, order, our_path, their_path
from sampler_helpers import Written, assert_same_path, denoiser

from langevin.diffusion.schedules.linear import Linear
from langevin.samplers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M
from langevin.samplers.dpm_solver_singlestep import DPMSolver1S, DPMSolver2S
from langevin.samplers.thresholding import Dynamic
from langevin.samplers.timestep_spacing import Leading, LogSNR, Trailing

SINGLE = 1e-6
"""diffusers' multistep DPM-Solver computes in float32 whatever it is given."""


# On one schedule every day: `test_does_the_same_on_every_schedule` of test_exponential.py has the others.
@pytest.mark.parametrize(
    "schedule",
    [pytest.param(SCHEDULES[name], id=name, marks=() if name == "vp" else pytest.mark.slow) for name in SCHEDULES],
)
@pytest.mark.parametrize(
    ("sampler", "declared"),
    [
        (DPMSolver1S(LogSNR()), 1),
        (DPMSolver2S(LogSNR()), 2),
        (DPMSolver2S(LogSNR(), r=0.3), 2),
        (DPMSolver2S(LogSNR(), r=1.0), 2),
        (DPMSolver2M(LogSNR()), 2),
        (DPMSolver3M(LogSNR()), 3),
        (DPMSolver3M(LogSNR(), released=True), 2),
    ],
    ids=["1s", "2s", "2s_near", "2s_end", "2m", "3m", "3m_released"],
)
def test_order(sampler, declared, schedule):
    assert order(sampler, schedule, (60, 120, 240)) == pytest.approx(declared, abs=0.15)


@pytest.mark.parametrize("timestep_spacing", [Trailing(), Leading(), LogSNR()], ids=["trailing", "leading", "log_snr"])
@pytest.mark.parametrize("steps", [2, 10, 14, 15, 25])
@pytest.mark.parametrize(
    ("kind", "options", "theirs"),
    [
        (DPMSolver1S, {}, {"solver_order": 1}),
        (DPMSolver2M, {}, {"solver_order": 2}),
        (DPMSolver3M, {"released": True}, {"solver_order": 3}),
        (DPMSolver3M, {"released": True, "lower_order_final": False}, {"solver_order": 3, "lower_order_final": False}),
    ],
    ids=["1s", "2m", "3m", "3m_not_lowered"],
)
def test_path_is_diffusers(kind, options, theirs, steps, timestep_spacing):
    model, times = denoiser(Linear()), timestep_spacing(Linear(), steps)
    ours = our_path(kind(timestep_spacing, None, steps, **options), model, Written())
    assert_same_path(ours, their_path(DPMSolverMultistepScheduler(**theirs), model, times, Written()), SINGLE)


@pytest.mark.parametrize("thresholding", [None, Dynamic(0.9, 1.2)], ids=["free", "dynamic"])
@pytest.mark.parametrize("steps", [6, 14])
def test_third_order_path_is_that_of_unipcs_predictor(steps, thresholding):
    """Which is of third order in diffusers, too."""
    model, times = denoiser(Linear()), Trailing()(Linear(), steps)
    ours = our_path(DPMSolver3M(Trailing(), thresholding, steps), model, Written())
    thresholded = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.2}
    theirs = UniPCMultistepScheduler(
        solver_order=3, disable_corrector=list(range(steps)), **(thresholded if thresholding else {})
    )
    assert_same_path(ours, their_path(theirs, model, times, Written()))


def test_released_third_order_is_another():
    model = denoiser(Linear())
    ours, released = (DPMSolver3M(Trailing(), None, 10, released=value)(model, Written()) for value in (False, True))
    assert (ours - released).abs().max() > 1e-4


@pytest.mark.parametrize("r", [0.5, 0.25])
@pytest.mark.parametrize("steps", [2, 5, 12])
def test_second_order_path_is_diffusers(r, steps):
    """There a step is two of the timestep spacing's, so that the times between are given as well."""
    schedule = Linear()
    model, timestep_spacing = denoiser(schedule), Trailing()(schedule, steps)
    half_log_snr = schedule(timestep_spacing).log_snr / 2
    between = schedule.time_of(torch.exp(-torch.lerp(half_log_snr[:-2], half_log_snr[1:-1], r)))
    times = torch.cat([torch.stack([timestep_spacing[:-2], between], 1).flatten(), timestep_spacing[-2:]])
    ours = our_path(DPMSolver2S(Trailing(), None, steps, r), model, Written())
    scheduler = DPMSolverSinglestepScheduler(solver_order=2, lower_order_final=True)
    assert_same_path(ours, their_path(scheduler, model, times, Written()))
