"""Schedulers of diffusers in our terms: schedule, parameterization, variance and sampling."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from langevin.diffusion.parameterization import Eps, V, X
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange
from langevin.errors import UserError
from langevin.interop.diffusers import Known, completed
from langevin.interop.renaming import settings
from langevin.samplers.timestep_spacing import Leading, Trailing, UniformSpacing

KEPT = {"keep_eps": True}
"""Their DDIM's noise does not follow an image that is kept in range, unless it is called to."""
STEPS = 1000
"""The steps at which a time on the scale 0..1000 is the step's number, which diffusers gives its networks."""
DDPM, DDIM, PNDM, EULER, DPM = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
)
SPACING = "Literal['leading', 'trailing', 'linspace']"
TRAINING = {
    "num_train_timesteps": (STEPS, "Annotated[int, Ge(1), Le(1000000)]"),
    "beta_start": (1e-4, "Annotated[float, Gt(0), Lt(1)]"),
    "beta_end": (0.02, "Annotated[float, Gt(0), Lt(1)]"),
    "beta_schedule": ("linear", "Literal['linear', 'scaled_linear', 'squaredcos_cap_v2']"),
    "trained_betas": (None, "list[Annotated[float, Gt(0), Lt(1)]] | None"),
    "prediction_type": ("epsilon", "Literal['epsilon', 'sample', 'v_prediction']"),
    "rescale_betas_zero_snr": (False, "bool"),
    "steps_offset": (0, "Annotated[int, Ge(0)]"),
}
DYNAMIC = {
    "thresholding": (False, "bool"),
    "dynamic_thresholding_ratio": (0.995, "Annotated[float, Gt(0), Le(1)]"),
    "sample_max_value": (1.0, "Annotated[float, Ge(1)] | None"),
}
VARIANCE = "Literal['fixed_small', 'fixed_small_log', 'fixed_large', 'learned_range']"
CLIPPING = {
    "variance_type": ("fixed_small", VARIANCE),
    "clip_sample": (True, "bool"),
    "clip_sample_range": (1.0, "float"),
    "timestep_spacing": ("leading", SPACING),
    **DYNAMIC,
}
SIGMAS = {
    "timestep_spacing": ("linspace", SPACING),
    "use_karras_sigmas": (False, "bool | None"),
    "use_exponential_sigmas": (False, "bool | None"),
    "use_beta_sigmas": (False, "bool | None"),
    "final_sigmas_type": ("zero", "Literal['zero', 'sigma_min']"),
}
KINDS: Mapping[str, Known] = {
    DDPM: {**TRAINING, **CLIPPING},
    DDIM: {**TRAINING, **CLIPPING, "set_alpha_to_one": (True, "bool")},
    PNDM: {**TRAINING, "timestep_spacing": ("leading", SPACING), "set_alpha_to_one": (False, "bool")},
    EULER: {
        **TRAINING,
        **SIGMAS,
        "interpolation_type": ("linear", "Literal['linear', 'log_linear']"),
        "timestep_type": ("discrete", "Literal['discrete']"),
        "sigma_min": (None, "float | None"),
        "sigma_max": (None, "float | None"),
    },
    DPM: {
        **TRAINING,
        **SIGMAS,
        **DYNAMIC,
        "variance_type": (None, f"{VARIANCE} | None"),
        "solver_order": (2, "Literal[1, 2, 3]"),
        "algorithm_type": ("dpmsolver++", "str"),
        "solver_type": ("midpoint", "str"),
        "lower_order_final": (True, "bool"),
        "use_lu_lambdas": (False, "bool | None"),
        "use_flow_sigmas": (False, "Literal[False] | None"),
    },
}
"""The fields that are looked at, by the scheduler's class."""
LEFT_OUT = {
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "final_sigmas_type": "zero",
    "interpolation_type": "linear",
    "sigma_min": None,
    "sigma_max": None,
}
"""Fields of sampling alone that we have not, with the values at which they do nothing."""
SCHEDULES = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine"}
SPACINGS = {
    "trailing": ("trailing", Trailing),
    "linspace": ("uniform", UniformSpacing),
    "leading": ("leading", Leading),
}
PREDICTIONS = {"epsilon": ("eps", Eps), "sample": ("x", X), "v_prediction": ("v", V)}
VARIANCES = {
    "fixed_small": ("fixed_small", FixedSmall),
    "fixed_large": ("fixed_large", FixedLarge),
    "learned_range": ("learned_range", LearnedRange),
}
"""What diffusers calls an option of ours, and its class."""


class ReadScheduler(NamedTuple):
    """A scheduler of diffusers in our terms.

    Attributes:
        overrides: schedule, rescalings, parameterization, variance, sampler, timestep spacing and thresholding.
        notes: what of its sampling is not the same here, a sentence each.
    """

    overrides: list[str]
    notes: tuple[str, ...]


def scheduler_of(where: str, config: Mapping[str, Any], learned: bool = False) -> ReadScheduler:
    """The choices that are a scheduler of diffusers.

    The sampler is of the same kind as theirs; where we have none such, it is DDIM. DDIM's and Euler's steps are their
    pipelines' default.

    Args:
        where: the config's place, for messages.
        config: the scheduler's arguments; those that are missing are diffusers' defaults.
        learned: whether the network puts out a variance that the scheduler is not told of.

    Raises:
        UserError: when the model was trained in a way that we have not.
    """
    kind = completed(where, config, {"_class_name": (DDPM, f"Literal{list(KINDS)}")})["_class_name"]
    own = completed(where, config, KINDS[kind])
    sampler, notes = _sampler(kind, own)
    spacing, more = _spacing(kind, own)
    variance = "learned_range" if learned else (own.get("variance_type") or "fixed_small").removesuffix("_log")
    overrides = [
        *_schedule(where, own),
        f"parameterization={PREDICTIONS[own['prediction_type']][0]}",
        f"variance={variance}",
        *sampler,
        *spacing,
        *_read_thresholding(where, own),
    ]
    return ReadScheduler(overrides, (*notes, *more))


def _schedule(where: str, own: Mapping[str, Any]) -> list[str]:
    """The schedule and its rescalings."""
    steps, betas = own["num_train_timesteps"], own["trained_betas"]
    if betas is not None and len(betas) != steps:
        raise UserError(f"{where}: trained_betas are {len(betas)}; allowed: num_train_timesteps, {steps}")
    if betas is not None:
        schedule = ["schedule=explicit", *settings("schedule", {"betas": betas})]
    else:
        name = SCHEDULES[own["beta_schedule"]]
        fields = {"beta_start": own["beta_start"], "beta_end": own["beta_end"], "rescale": False}
        fields = {"num_steps": steps, **({} if name == "cosine" else fields)}
        schedule = [f"schedule={name}", *settings("schedule", fields)]
    rescalings = ["zero_terminal_snr"] * own["rescale_betas_zero_snr"] + ["unscaled_timesteps"] * (steps != STEPS)
    return [*schedule, f"rescalings=[{','.join(rescalings)}]"]


def _sampler(kind: str, own: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The sampler of the same kind, or DDIM with a note."""
    ddim = ["sampler=ddim", "sampler.steps=50", "sampler.eta=0.0"]
    plain = {DDPM: ["sampler=ancestral", "sampler.steps=null"], DDIM: ddim, EULER: ["sampler=euler"]}
    if kind in plain:
        return plain[kind], []
    if kind == DPM:
        solver = own["algorithm_type"], own["solver_type"], own["solver_order"]
        third = {"released": True, "lower_order_final": own["lower_order_final"]}
        known = {
            ("dpmsolver++", "midpoint", 2): ["sampler=dpm_solver_2m"],
            ("dpmsolver++", "midpoint", 3): ["sampler=dpm_solver_3m", *settings("sampler", third)],
            ("sde-dpmsolver++", "midpoint", 2): ["sampler=dpm_solver_2m_sde"],
        }
        if solver in known:
            return known[solver], []
        if own["solver_order"] == 1 and not own["algorithm_type"].startswith("sde"):
            return ddim, []  # the same
        kind = f"{kind} with algorithm_type {solver[0]}, solver_type {solver[1]} and solver_order {solver[2]}"
    return ddim, [f"{kind} is not among our samplers: the run has sampler=ddim"]


def _spacing(kind: str, own: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The timestep spacing, and what differs."""
    name, at_first = own["timestep_spacing"], not own.get("set_alpha_to_one", True)
    notes = [
        f"{field} {own[field]} of {kind} is left out: it concerns its sampling alone"
        for field, idle in LEFT_OUT.items()
        if own.get(field, idle) not in (idle, None)
    ]
    if own.get("use_karras_sigmas"):
        return ["timestep_spacing=karras"], notes
    if own.get("use_lu_lambdas"):
        return ["timestep_spacing=log_snr"], notes
    if at_first and name != "leading":
        notes.append(
            f"set_alpha_to_one False of {kind} is left out: with timestep_spacing {name}, steps end at the data"
        )
    if kind == DPM and name == "linspace":
        name = "trailing"  # N of N + 1 times, all but the last: the same to within one step of T
    if name != "leading":
        return [f"timestep_spacing={SPACINGS[name][0]}"], notes
    if kind == DPM:
        notes.append(
            f"the times of {kind} with timestep_spacing leading differ: it makes one step more, and leaves it out"
        )
    fields = {"offset": own["steps_offset"], "stop_at_first": at_first}
    return ["timestep_spacing=leading", *settings("timestep_spacing", fields)], notes


def _read_thresholding(where: str, own: Mapping[str, Any]) -> list[str]:
    """What keeps predicted images in range."""
    if own.get("thresholding"):
        fields = {"percentile": own["dynamic_thresholding_ratio"], "limit": own["sample_max_value"], **KEPT}
        return ["thresholding=dynamic", *settings("thresholding", fields)]
    if not own.get("clip_sample"):
        return ["thresholding=none"]
    if own["clip_sample_range"] != 1:
        raise UserError(f"{where}: clip_sample_range is {own['clip_sample_range']}; allowed: 1, or clip_sample false")
    return ["thresholding=static", *settings("thresholding", KEPT)]
