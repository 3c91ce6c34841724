"""Schedulers of other kinds than DDPM's and DDIM's: what is taken of them, and DPM-Solver++ as what ours becomes."""

import re

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from helpers.commands import composed
from helpers.draws import Given

from langevin.assembly.check import check_model
from langevin.assembly.components import SAMPLING, make_process, make_sampler
from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import V
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.rescalings.unscaled_timesteps import UnscaledTimesteps
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.variance import FixedSmall
from langevin.interop.scheduler_config import notes_on, scheduler_config
from langevin.interop.schedulers import scheduler_of
from langevin.samplers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M
from langevin.samplers.thresholding import Static
from langevin.samplers.timestep_spacing import Auto, Trailing
from langevin.spec import DataSpec

LATENT = {"beta_schedule": "scaled_linear", "beta_start": 8.5e-4, "beta_end": 0.012}
"""Stable Diffusion's betas."""
NOISE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()


class Network(torch.nn.Module):
    """A fixed smooth function of the image and of the step's number."""

    condition = None

    def forward(self, x, c_noise, cond=None):
        time = torch.sin(c_noise.double() / 150).reshape(-1, 1, 1, 1)
        return torch.tanh(0.7 * x + 0.3 * x.roll(1, 2) + time)


def run_of(scheduler, steps):
    """The denoiser and the sampler that the scheduler's config becomes, and the notes."""
    read = scheduler_of("", dict(scheduler.config) | {"_class_name": type(scheduler).__name__})
    cfg, _ = composed("train", *read.overrides)
    cfg.sampler.steps = steps
    check_model(cfg, SAMPLING)
    process = make_process(cfg, 8)
    return Denoiser(Network(), process), make_sampler(cfg, DataSpec.of_images(3, 8, None)), read.notes


def theirs(scheduler, steps=None, timesteps=None):
    network = Network()
    scheduler.set_timesteps(*([] if timesteps else [steps]), **({"timesteps": timesteps} if timesteps else {}))
    x = NOISE * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(x, t), t.expand(len(x)))
        x = scheduler.step(output, t, x).prev_sample
    return x


@pytest.mark.parametrize(
    ("scheduler", "sampler"),
    [
        (DPMSolverMultistepScheduler(timestep_spacing="trailing", **LATENT), "DPMSolver2M"),
        (
            DPMSolverMultistepScheduler(
                timestep_spacing="trailing", prediction_type="v_prediction", thresholding=True, **LATENT
            ),
            "DPMSolver2M",
        ),
        (DPMSolverMultistepScheduler(timestep_spacing="trailing", solver_order=3, **LATENT), "DPMSolver3M"),
        (DPMSolverMultistepScheduler(timestep_spacing="trailing", solver_order=1, **LATENT), "DDIM"),
        (EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **LATENT), "Euler"),
        (EulerDiscreteScheduler(timestep_spacing="leading", num_train_timesteps=400, **LATENT), "Euler"),
    ],
    ids=["2m", "2m-v", "3m", "1", "euler", "euler-400"],
)
@pytest.mark.parametrize("steps", [10, 20])
def test_the_sampler_of_the_same_kind(scheduler, sampler, steps):
    """To their float32 levels."""
    denoiser, own, notes = run_of(scheduler, steps)
    assert type(own).__name__ == sampler
    assert notes == ()
    expected = theirs(scheduler, steps)
    assert expected.std() > 0.1
    torch.testing.assert_close(own(denoiser, Given(NOISE)), expected, rtol=0, atol=1e-4)


def test_pndm_is_taken_for_ddim():
    scheduler = PNDMScheduler(steps_offset=1, skip_prk_steps=True, **LATENT)
    denoiser, sampler, notes = run_of(scheduler, 50)
    assert notes == ("PNDMScheduler is not among our samplers: the run has sampler=ddim",)
    expected = theirs(scheduler, 50)
    made = sampler(denoiser, Given(NOISE))
    assert sampler.times(denoiser.schedule)[-3:].tolist() == [22, 2, 1]
    # The times are the same, and where the walk ends; the solver is not.
    assert (made - expected).abs().max() < 0.1 * expected.std()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "solver_order 3 is not among our samplers"),
        ({"solver_type": "heun"}, "solver_type heun and solver_order 2 is not among our samplers"),
        ({"final_sigmas_type": "sigma_min"}, "final_sigmas_type sigma_min of DPMSolverMultistepScheduler is left out"),
        ({"timestep_spacing": "leading"}, "with timestep_spacing leading differ"),
    ],
)
def test_what_is_not_the_same_is_said(fields, words):
    *_, notes = run_of(DPMSolverMultistepScheduler(**{"timestep_spacing": "trailing"} | fields), 20)
    assert len(notes) == 1
    assert words in notes[0]


def test_the_first_level_is_the_end_of_leading_times_alone():
    for spacing, number in (("leading", 0), ("trailing", 1), ("linspace", 1)):
        scheduler = DDIMScheduler(set_alpha_to_one=False, timestep_spacing=spacing)
        denoiser, sampler, notes = run_of(scheduler, 20)
        assert sampler.times(denoiser.schedule)[-1] == 1 - number
        assert len(notes) == number
        assert all("set_alpha_to_one False of DDIMScheduler is left out" in note for note in notes)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"use_karras_sigmas": True}, "Karras"),
        ({"use_lu_lambdas": True}, "LogSNR"),
        ({"timestep_spacing": "linspace"}, "Trailing"),
    ],
)
def test_spacings_of_dpm_solver_are_the_same_times_nearly(fields, name):
    scheduler = DPMSolverMultistepScheduler(**fields)
    denoiser, sampler, _ = run_of(scheduler, 10)
    assert type(sampler.timestep_spacing).__name__ == name
    scheduler.set_timesteps(10)
    difference = sampler.times(denoiser.schedule)[:-1] - 1 - scheduler.timesteps
    assert difference.abs().max() <= 1 or name == "LogSNR"
    assert difference.abs().max() <= 30


CLIPPED = {"thresholding": Static(), "steps": 20}


@pytest.mark.parametrize(
    "sampler",
    [DPMSolver2M(Trailing(), **CLIPPED), DPMSolver2M(Auto(), **CLIPPED), DPMSolver3M(Auto(), steps=12, released=True)],
    ids=["trailing", "auto", "3m"],
)
@pytest.mark.parametrize("schedule", [Cosine(), UnscaledTimesteps(Cosine(250))], ids=["1000", "250"])
def test_ours_becomes_dpm_solver(sampler, schedule):
    """With the times that a note gives, the samples are the run's own, as the quickstart makes them."""
    config = scheduler_config(schedule, V(), FixedSmall(), sampler)
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    notes = " ".join(notes_on(schedule, sampler))
    assert f"num_inference_steps={sampler.steps}" in notes
    own = re.search(r"set_timesteps\(timesteps=\[([\d, ]+)\]\)", notes)
    assert (own is None) == isinstance(sampler.timestep_spacing, Trailing)
    timesteps = own and [int(t) for t in own[1].split(",")]
    denoiser = Denoiser(Network(), GaussianProcess(schedule, V()))
    expected = theirs(scheduler, sampler.steps, timesteps)
    assert (expected.abs() < 0.99).float().mean() > 0.3, "else next to nothing would be compared"
    torch.testing.assert_close(sampler(denoiser, Given(NOISE)), expected, rtol=0, atol=1e-4)
    even = theirs(scheduler, sampler.steps)
    assert even.isfinite().all()
