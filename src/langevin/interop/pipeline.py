"""Folders of diffusers, both ways: a `DDPMPipeline` or `DDIMPipeline`, or its `UNet2DModel` alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from langevin.diffusion.denoiser import Denoiser
from langevin.diffusion.parameterization import Eps, Parameterization, V, X
from langevin.diffusion.rescalings.input_scaling import InputScaling
from langevin.diffusion.rescalings.zero_terminal_snr import ZeroTerminalSNR
from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.diffusion.schedules.cosine import Cosine
from langevin.diffusion.schedules.linear import Linear
from langevin.diffusion.schedules.quadratic import QuadraticSchedule
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped
from langevin.diffusion.variance import FixedLarge, FixedSmall, LearnedRange, Variance
from langevin.errors import UserError
from langevin.files import write_atomically
from langevin.interop.diffusers import Known, completed, from_diffusers, to_diffusers, unet_2d_config, unet_of
from langevin.interop.imported import Imported
from langevin.interop.renaming import Model, StateDict, class_overrides, settings
from langevin.networks.unet import UNet
from langevin.samplers.ddim import DDIM
from langevin.samplers.sampler import Sampler
from langevin.samplers.thresholding import Dynamic, Static, Thresholding
from langevin.samplers.timestep_spacing import Leading, Trailing, UniformSpacing
from langevin.weights import SAFETENSORS, read_weights

VERSION = "0.32.0"
"""The version of diffusers whose format is written."""
INDEX, UNET_FILE, SCHEDULER_FILE, RECORD_FILE = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "langevin.json",
)
WEIGHTS = tuple("diffusion_pytorch_model" + suffix for suffix in (SAFETENSORS, ".bin"))
"""The names of a network's weights, those first that are taken first."""
KEPT = {"keep_eps": True}
"""Their DDIM's noise does not follow an image that is kept in range, unless it is called to."""
STEPS = 1000
"""Both sides give the network the step's index, from 0; ours scales it to 0..1000."""
SCHEDULER: Known = {
    "_class_name": ("DDPMScheduler", "Literal['DDPMScheduler', 'DDIMScheduler']"),
    "num_train_timesteps": (STEPS, f"Literal[{STEPS}]"),
    "beta_start": (1e-4, "Annotated[float, Gt(0), Lt(1)]"),
    "beta_end": (0.02, "Annotated[float, Gt(0), Lt(1)]"),
    "beta_schedule": ("linear", "Literal['linear', 'scaled_linear', 'squaredcos_cap_v2']"),
    "trained_betas": (None, "list[Annotated[float, Gt(0), Lt(1)]] | None"),
    "variance_type": (
        "fixed_small",
        "Literal['fixed_small', 'fixed_small_log', 'fixed_large', 'learned_range']",
    ),
    "clip_sample": (True, "bool"),
    "clip_sample_range": (1.0, "float"),
    "prediction_type": ("epsilon", "Literal['epsilon', 'sample', 'v_prediction']"),
    "thresholding": (False, "bool"),
    "dynamic_thresholding_ratio": (0.995, "Annotated[float, Gt(0), Le(1)]"),
    "sample_max_value": (1.0, "Annotated[float, Ge(1)] | None"),
    "timestep_spacing": ("leading", "Literal['leading', 'trailing', 'linspace']"),
    "steps_offset": (0, "Literal[0]"),
    "rescale_betas_zero_snr": (False, "bool"),
    "set_alpha_to_one": (True, "Literal[True]"),
}
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


def is_folder(place: Path) -> bool:
    """Whether a place is a folder of diffusers."""
    return any((place / name).is_file() for name in (INDEX, UNET_FILE, f"unet/{UNET_FILE}"))


def read_folder(folder: Path) -> Imported:
    """Read a folder of diffusers: unet/ and scheduler/, or the files of both at its root, or a `UNet2DModel` alone.

    A class-conditional network has as many classes as rows of its table, but for one that we wrote ourselves.

    Raises:
        UserError: when a file is missing or damaged, or holds something that we have not.
    """
    if (folder / INDEX).is_file():
        index = {"_class_name": (None, "Literal['DDPMPipeline', 'DDIMPipeline']")}
        completed(str(folder / INDEX), read_json(folder / INDEX), index)
    inner = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_json(inner / UNET_FILE)
    where = str(inner / UNET_FILE)
    completed(where, config, {"_class_name": ("UNet2DModel", "Literal['UNet2DModel']")})
    model, image_size = unet_of(where, config)
    channels, out_channels = config.get("in_channels", 3), config.get("out_channels", 3)
    num_classes = config.get("num_class_embeds")
    classes = class_overrides(num_classes)
    if num_classes is not None and any((place / RECORD_FILE).is_file() for place in (inner, inner.parent)):
        num_classes, classes = num_classes - 1, ["conditions=[class_label]"]
    overrides = ["model=unet", *settings("model", model), *classes]

    schedulers = [folder / "scheduler" / SCHEDULER_FILE, folder / SCHEDULER_FILE]
    found = next((file for file in schedulers if file.is_file()), None)
    learned = out_channels == 2 * channels
    if found is not None:
        scheduler = read_json(found)
        overrides += scheduler_of(str(found), scheduler)
        learned = scheduler.get("variance_type") == "learned_range"
    elif learned:
        overrides.append("variance=learned_range")
    if out_channels != channels * (1 + learned):
        raise UserError(
            f"{where}: out_channels is {out_channels}; allowed: {channels}, as in_channels, or {2 * channels} with "
            "variance_type learned_range"
        )
    file = next((inner / name for name in WEIGHTS if (inner / name).is_file()), None)
    if file is None:
        raise UserError(f"{inner} holds no weights; allowed: {' or '.join(WEIGHTS)}")
    weights = read_weights(file)
    return Imported(
        overrides, channels, image_size, num_classes, lambda model: from_diffusers(weights, model, num_classes)
    )


def read_json(file: Path) -> dict[str, Any]:
    """Read a config.

    Raises:
        UserError: when it is missing or damaged.
    """
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is no config; allowed: names and values, as diffusers writes them")
    return config


def scheduler_of(where: str, config: Mapping[str, Any]) -> list[str]:
    """The choices that are a scheduler of diffusers: schedule, rescalings, parameterization, variance and sampling.

    The sampler goes the same way as theirs. DDIM's steps are their pipeline's default.

    Args:
        where: the config's place, for messages.
        config: the scheduler's arguments; those that are missing are diffusers' defaults.

    Raises:
        UserError: when we have no such thing.
    """
    own = completed(where, config, SCHEDULER)
    betas = own["trained_betas"]
    if betas is not None and len(betas) != STEPS:
        raise UserError(f"{where}: trained_betas are {len(betas)}; allowed: num_train_timesteps, {STEPS}")
    if betas is not None:
        schedule = ["schedule=explicit", *settings("schedule", {"betas": betas})]
    else:
        name = SCHEDULES[own["beta_schedule"]]
        fields = {"beta_start": own["beta_start"], "beta_end": own["beta_end"], "rescale": False}
        fields = {"num_steps": STEPS, **({} if name == "cosine" else fields)}
        schedule = [f"schedule={name}", *settings("schedule", fields)]
    if own["thresholding"]:
        fields = {"percentile": own["dynamic_thresholding_ratio"], "limit": own["sample_max_value"], **KEPT}
        thresholding = ["thresholding=dynamic", *settings("thresholding", fields)]
    elif own["clip_sample"] and own["clip_sample_range"] != 1:
        raise UserError(f"{where}: clip_sample_range is {own['clip_sample_range']}; allowed: 1, or clip_sample false")
    else:
        thresholding = ["thresholding=none"]
        if own["clip_sample"]:
            thresholding = ["thresholding=static", *settings("thresholding", KEPT)]
    sampler = ["sampler=ancestral", "sampler.steps=null"]
    if own["_class_name"] == "DDIMScheduler":
        sampler = ["sampler=ddim", "sampler.steps=50", "sampler.eta=0.0"]
    return [
        *schedule,
        f"rescalings=[{'zero_terminal_snr' if own['rescale_betas_zero_snr'] else ''}]",
        f"parameterization={PREDICTIONS[own['prediction_type']][0]}",
        f"variance={own['variance_type'].removesuffix('_log')}",
        *sampler,
        f"timestep_spacing={SPACINGS[own['timestep_spacing']][0]}",
        *thresholding,
    ]


def write_folder(
    out: Path,
    denoiser: Denoiser,
    sampler: Sampler,
    model: Model,
    channels: int,
    image_size: int,
    num_classes: int | None,
    record: Mapping[str, Any],
) -> None:
    """Write a model as a `DDIMPipeline` if its sampler is DDIM, else as a `DDPMPipeline`.

    Args:
        out: the folder; what it holds already is replaced file by file.
        denoiser: the model.
        sampler: whose timestep spacing and thresholding the pipeline gets.
        model: the parameters of its network, see `renaming.Model`.
        channels: of an image.
        image_size: the side of an image in pixels.
        num_classes: of its labels; None without.
        record: plain values to be kept in langevin.json, which also records that the table of classes ends with a row
            for "no label".

    Raises:
        UserError: when diffusers has no such thing; nothing is written then.
    """
    if not isinstance(denoiser.network, UNet):
        name = type(denoiser.network).__name__
        raise UserError(f"model is {name}; allowed: a UNet, which diffusers' UNet2DModel can be")
    out_channels = denoiser.variance.channels(channels)
    unet = unet_2d_config(model, channels, out_channels, image_size, num_classes)
    weights = to_diffusers(denoiser.network.state_dict(), model)
    scheduler = scheduler_config(denoiser.schedule, denoiser.parameterization, denoiser.variance, sampler)
    name = scheduler["_class_name"]
    index = {"scheduler": ["diffusers", name], "unet": ["diffusers", "UNet2DModel"]}
    write_weights(out / "unet" / WEIGHTS[0], weights)
    write_json(out / "unet" / UNET_FILE, {"_class_name": "UNet2DModel", "_diffusers_version": VERSION, **unet})
    write_json(out / "scheduler" / SCHEDULER_FILE, scheduler)
    write_json(out / RECORD_FILE, record)
    pipeline = name.replace("Scheduler", "Pipeline")
    write_json(out / INDEX, {"_class_name": pipeline, "_diffusers_version": VERSION, **index})


def write_weights(file: Path, weights: StateDict, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as safetensors, with texts beside them."""
    whole: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in weights.items()}
    content = safetensors.torch.save(whole, {"format": "pt", **(metadata or {})})
    write_atomically(file, lambda opened: opened.write(content))


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a config."""
    write_atomically(file, lambda opened: opened.write(json.dumps(content, indent=2).encode() + b"\n"))


def scheduler_config(
    schedule: Schedule, parameterization: Parameterization, variance: Variance, sampler: Sampler
) -> dict[str, Any]:
    """The config of the `DDPMScheduler` or `DDIMScheduler` that these are: the inverse of `scheduler_of`.

    Raises:
        UserError: when diffusers has no such thing.
    """
    ddim = isinstance(sampler, DDIM)
    if ddim and isinstance(variance, LearnedRange):
        raise UserError("variance is learned_range with sampler=ddim; allowed: sampler=ancestral for diffusers")
    return {
        "_class_name": "DDIMScheduler" if ddim else "DDPMScheduler",
        "_diffusers_version": VERSION,
        "num_train_timesteps": STEPS,
        **_betas(schedule),
        "prediction_type": _named("parameterization", parameterization, PREDICTIONS),
        "variance_type": _named("variance", variance, VARIANCES),
        "timestep_spacing": _named("timestep_spacing", sampler.spacing_on(schedule), SPACINGS),
        "steps_offset": 0,
        **_thresholding(sampler.thresholding),
        **({"set_alpha_to_one": True} if ddim else {}),
    }


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
    terminal = isinstance(schedule, ZeroTerminalSNR)
    inner = schedule.schedule if isinstance(schedule, ZeroTerminalSNR) else schedule
    innermost = inner
    while isinstance(innermost, Wrapped):
        if isinstance(innermost, InputScaling):
            raise UserError(f"rescalings.input_scaling.b is {innermost.b}; allowed: no input scaling in diffusers")
        innermost = innermost.schedule
    if inner.num_steps is None:
        raise UserError(f"schedule is {type(inner).__name__} in continuous time; allowed: {STEPS} steps in diffusers")
    times = torch.arange(inner.num_steps + 1, dtype=torch.float64)
    if not torch.allclose(inner.clock(times), times - 1):
        raise UserError(
            f"schedule.num_steps is {inner.num_steps}; allowed: {STEPS}, for diffusers gives the network the number of "
            f"the step, which ours scales to 0..{STEPS}"
        )
    alpha, sigma = inner(times)
    if not torch.allclose(torch.hypot(alpha, sigma), torch.ones_like(alpha)):
        allowed = "one that preserves variance, such as linear, quadratic or cosine, in diffusers"
        raise UserError(f"schedule is {type(innermost).__name__}; allowed: {allowed}")
    betas = 1 - (alpha[1:] / alpha[:-1]).square()
    if isinstance(inner, BetaSchedule):
        betas = inner.betas
    rescaled = {"rescale_betas_zero_snr": terminal}
    if isinstance(inner, Linear | QuadraticSchedule):
        name = "linear" if isinstance(inner, Linear) else "scaled_linear"
        # The roots' squares are not the very numbers they were taken of.
        first, last = (float(f"{float(beta):.15g}") for beta in (betas[0], betas[-1]))
        return {"beta_schedule": name, "beta_start": first, "beta_end": last, **rescaled}
    if isinstance(inner, Cosine) and torch.equal(alpha, Cosine(STEPS)(times).alpha):
        return {"beta_schedule": "squaredcos_cap_v2", **rescaled}
    return {"trained_betas": betas.tolist(), **rescaled}
