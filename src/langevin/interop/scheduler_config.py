"""Our schedule, parameterization, variance and sampler as a scheduler of diffusers: the inverse of `schedulers`."""

from collections.abc import Mapping
from typing import Any

import torch

from langevin.diffusion.parameterization import Parameterization
from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.unscaled_timesteps import UnscaledTimesteps
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.quadratic import QuadraticSchedule
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped
from langevin.diffusion.variance import LearnedRange, Variance
from langevin.errors import UserError
from langevin.interop import schedulers
from langevin.interop.folder import VERSION
from langevin.interop.schedulers import DDPM, DPM, PREDICTIONS, SPACINGS, STEPS, VARIANCES
from langevin.samplers.ancestral import Ancestral
from langevin.samplers.ddim import DDIM
from langevin.samplers.dpm_solver_multistep import DPMSolver2M, DPMSolver3M
from langevin.samplers.sampler import Sampler
from langevin.samplers.thresholding import Dynamic, Static, Thresholding
from langevin.samplers.timestep_spacing import InnerLogSNR, Leading, TimestepSpacing, Trailing

SAMPLERS = {
    "ancestral": (DDPM, Ancestral),
    "ddim": (schedulers.DDIM, DDIM),
    "dpm_solver_2m": (DPM, DPMSolver2M),
    "dpm_solver_3m": (DPM, DPMSolver3M),
}
"""The scheduler of a sampler, by its option, and the sampler's class."""


def scheduler_config(
    schedule: Schedule,
    parameterization: Parameterization,
    variance: Variance,
    sampler: Sampler,
    splits_variance: bool = False,
) -> dict[str, Any]:
    """The config of the scheduler that these are: the inverse of `scheduler_of`.

    Args:
        schedule: how noise grows with time.
        parameterization: what the network's output means.
        variance: of a reverse step.
        sampler: decides the class: ancestral, DDIM, or DPM-Solver++ with a memory.
        splits_variance: whether the pipeline shows the scheduler no learned variance.

    Raises:
        UserError: when diffusers has no such thing.
    """
    name, kind = _kind(sampler)
    learned = isinstance(variance, LearnedRange)
    if learned and (splits_variance if kind == DDPM else not splits_variance):
        right = "ddim" if splits_variance else "ancestral"
        raise UserError(f"variance is learned_range with sampler={name}; allowed: sampler={right} for diffusers")
    spacing = sampler.spacing_on(schedule)
    config = {
        "_class_name": kind,
        "_diffusers_version": VERSION,
        **_betas(schedule),
        "prediction_type": _named("parameterization", parameterization, PREDICTIONS),
        "variance_type": "fixed_small" if learned and splits_variance else _named("variance", variance, VARIANCES),
        "steps_offset": spacing.offset if isinstance(spacing, Leading) else 0,
    }
    if kind == DPM:
        return config | _dpm_solver(sampler, spacing)
    at_first = isinstance(spacing, Leading) and spacing.stop_at_first
    if at_first and kind != schedulers.DDIM:
        raise UserError("timestep_spacing.stop_at_first is true; allowed: false, or sampler=ddim, for diffusers")
    return config | {
        "timestep_spacing": _named("timestep_spacing", spacing, SPACINGS),
        **_thresholding(sampler.thresholding),
        **({"set_alpha_to_one": not at_first} if kind == schedulers.DDIM else {}),
    }


def _dpm_solver(sampler: Sampler, spacing: TimestepSpacing) -> dict[str, Any]:
    """What a config of DPM-Solver++ has of its own; it clamps as thresholding of which no value may exceed 1."""
    assert isinstance(sampler, DPMSolver2M)
    if sampler.order == 3 and not sampler.released:
        raise UserError("sampler.released is false; allowed: true, as diffusers' DPM-Solver++ of third order is")
    if not isinstance(spacing, Trailing | InnerLogSNR):
        raise UserError(
            f"timestep_spacing is {type(spacing).__name__}; allowed: trailing, or inner_log_snr, in diffusers' {DPM}"
        )
    kept = _thresholding(sampler.thresholding)
    if isinstance(sampler.thresholding, Static):
        kept = {"thresholding": True, "sample_max_value": 1.0}
    return {
        "algorithm_type": "dpmsolver++",
        "solver_order": sampler.order,
        "solver_type": "midpoint",
        "lower_order_final": sampler.order == 2 or sampler.lower_order_final,
        "final_sigmas_type": "zero",
        "timestep_spacing": "trailing",
        **{name: value for name, value in kept.items() if not name.startswith("clip")},
    }


def notes_on(schedule: Schedule, sampler: Sampler) -> list[str]:
    """What to do in diffusers for the same samples that a config cannot say, a sentence each."""
    steps, notes = len(sampler.times(schedule)) - 1, []
    if type(sampler) is DDIM and sampler.thresholding is not None and not sampler.thresholding.keep_eps:
        notes.append(
            "its DDIM makes the same images with use_clipped_model_output=True: thresholding.keep_eps is false"
        )
    if type(sampler) is DDIM and sampler.eta > 0:
        notes.append(f"its DDIM makes the same images with eta={sampler.eta:g}")
    if isinstance(sampler, DPMSolver2M):
        notes.append(f"its DPM-Solver++ is meant for few steps: call the pipeline with num_inference_steps={steps}")
        if isinstance(sampler.spacing_on(schedule), InnerLogSNR):
            times = [int(t) - 1 for t in sampler.times(schedule)[:-1]]
            notes.append(
                "its steps are even, which inner_log_snr is not; for the run's own, call the scheduler with "
                f"set_timesteps(timesteps={times})"
            )
    return notes


def _kind(sampler: Sampler) -> tuple[str, str]:
    """The sampler's option, and the class of diffusers' scheduler."""
    for name, (kind, own) in SAMPLERS.items():
        if type(sampler) is own:
            return name, kind
    allowed = ", ".join(SAMPLERS)
    raise UserError(f"sampler is {type(sampler).__name__}; allowed: {allowed} in diffusers' schedulers")


def _named(group: str, part: Any, table: Mapping[str, tuple[str, type]]) -> str:
    """What diffusers calls a part."""
    for name, (_, kind) in table.items():
        if type(part) is kind:
            return name
    allowed = ", ".join(option for option, _ in table.values())
    raise UserError(f"{group} is {type(part).__name__}; allowed: {allowed} in diffusers' schedulers")


def _thresholding(part: Thresholding | None) -> dict[str, Any]:
    """What keeps predicted images in range, in a scheduler's config."""
    if isinstance(part, Dynamic):
        dynamic = {"dynamic_thresholding_ratio": part.percentile, "sample_max_value": part.limit}
        return {"clip_sample": False, "thresholding": True, **dynamic}
    if part is not None and not isinstance(part, Static):
        raise UserError(f"thresholding is {type(part).__name__}; allowed: none, static or dynamic in diffusers")
    return {"clip_sample": part is not None, "clip_sample_range": 1.0, "thresholding": False}


def _betas(schedule: Schedule) -> dict[str, Any]:
    """A noise schedule in a scheduler's config."""
    inner, terminal = schedule, False
    while isinstance(inner, ZeroTerminalSNR | UnscaledTimesteps):
        terminal |= isinstance(inner, ZeroTerminalSNR)
        inner = inner.schedule
    innermost = inner
    while isinstance(innermost, Wrapped):
        if isinstance(innermost, InputScaling):
            raise UserError(f"rescalings.input_scaling.b is {innermost.b}; allowed: no input scaling in diffusers")
        innermost = innermost.schedule
    if inner.num_steps is None:
        raise UserError(f"schedule is {type(inner).__name__} in continuous time; allowed: {STEPS} steps in diffusers")
    steps = inner.num_steps
    times = torch.arange(steps + 1, dtype=torch.float64)
    if not torch.allclose(schedule.clock(times), times - 1):
        raise UserError(
            f"schedule.num_steps is {steps}; allowed: {STEPS}, or a model trained with "
            "rescalings=[unscaled_timesteps], for diffusers gives the network the number of the step, which ours "
            f"scales to 0..{STEPS}"
        )
    alpha, sigma = inner(times)
    if not torch.allclose(torch.hypot(alpha, sigma), torch.ones_like(alpha)):
        allowed = "one that preserves variance, such as linear, quadratic or cosine, in diffusers"
        raise UserError(f"schedule is {type(innermost).__name__}; allowed: {allowed}")
    betas = 1 - (alpha[1:] / alpha[:-1]).square()
    if isinstance(inner, BetaSchedule):
        betas = inner.betas
    rest = {"num_train_timesteps": steps, "rescale_betas_zero_snr": terminal}
    if isinstance(inner, Linear | QuadraticSchedule):
        name = "linear" if isinstance(inner, Linear) else "scaled_linear"
        # The roots' squares are not the very numbers they were taken of.
        first, last = (float(f"{float(beta):.15g}") for beta in (betas[0], betas[-1]))
        return {"beta_schedule": name, "beta_start": first, "beta_end": last, **rest}
    if isinstance(inner, Cosine) and torch.equal(alpha, Cosine(steps)(times).alpha):
        return {"beta_schedule": "squaredcos_cap_v2", **rest}
    return {"trained_betas": betas.tolist(), **rest}
