"""Folders of diffusers, both ways: a pipeline, or a network of it alone."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from torch import Tensor, nn

from langevin.diffusion.denoiser import Denoiser
from langevin.errors import UserError
from langevin.files import write_atomically
from langevin.interop.diffusers import completed, from_diffusers, to_diffusers, unet_2d_config, unet_of
from langevin.interop.dit import dit_of, from_diffusers_dit, to_diffusers_dit, transformer_config
from langevin.interop.imported import Imported, refuse_latents
from langevin.interop.renaming import Model, StateDict, class_overrides, settings
from langevin.interop.scheduler_config import VERSION, notes_on, scheduler_config
from langevin.interop.schedulers import scheduler_of
from langevin.networks.dit import DiT
from langevin.networks.unet import UNet
from langevin.samplers.sampler import Sampler
from langevin.weights import SAFETENSORS, read_weights

INDEX, NETWORK_FILE, SCHEDULER_FILE, RECORD_FILE = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "langevin.json",
)
WEIGHTS = tuple("diffusion_pytorch_model" + suffix for suffix in (SAFETENSORS, ".bin"))
"""The names of a network's weights, those first that are taken first."""
UNET, DIT = "UNet2DModel", "DiTTransformer2DModel"
PLACES = {UNET: "unet", DIT: "transformer"}
"""Where in its folder a pipeline has its network, by the network's class."""
OLD = {"Transformer2DModel": DIT}
"""What classes were once called."""
PIPELINES = ("DDPMPipeline", "DDIMPipeline", "DiTPipeline")
DIT_CLASSES = 1000
"""DiTPipeline takes this label for none."""


class ReadNetwork(NamedTuple):
    """What a network's config says.

    Attributes:
        overrides: the choices of model and conditions.
        channels: of its input.
        out_channels: of its output.
        image_size: the side of its input.
        num_classes: None where it has none.
        rename: gives weights our names, called with the weights and our network's parameters.
        splits_variance: whether its pipeline splits off a learned variance, of which the scheduler is not told.
    """

    overrides: list[str]
    channels: int
    out_channels: int
    image_size: int
    num_classes: int | None
    rename: Callable[[StateDict, Model], dict[str, Tensor]]
    splits_variance: bool


def is_folder(place: Path) -> bool:
    """Whether a place is a folder of diffusers."""
    files = (INDEX, NETWORK_FILE, *(f"{inner}/{NETWORK_FILE}" for inner in PLACES.values()))
    return any((place / name).is_file() for name in files)


def read_folder(folder: Path) -> Imported:
    """Read a folder of diffusers: a network's folder and scheduler/, or the files of both at its root, or a network.

    A class-conditional `UNet2DModel` has as many classes as rows of its table, but for one that we wrote ourselves.

    Raises:
        UserError: when a file is missing or damaged, or holds something that we have not.
    """
    if (folder / INDEX).is_file():
        index = {"_class_name": (None, f"Literal{list(PIPELINES)}")}
        completed(str(folder / INDEX), read_json(folder / INDEX), index)
    inner = next((folder / name for name in PLACES.values() if (folder / name).is_dir()), folder)
    config = read_json(inner / NETWORK_FILE)
    where = str(inner / NETWORK_FILE)
    kind = completed(where, config, {"_class_name": (UNET, f"Literal{[*PLACES, *OLD]}")})["_class_name"]
    network = READERS[OLD.get(kind, kind)](inner, config)
    refuse_latents(folder, network.channels)

    schedulers = [folder / "scheduler" / SCHEDULER_FILE, folder / SCHEDULER_FILE]
    found = next((file for file in schedulers if file.is_file()), None)
    has_variance = network.out_channels == 2 * network.channels
    learned, overrides = has_variance, [*network.overrides]
    notes: tuple[str, ...] = ()
    if found is not None:
        scheduler = read_json(found)
        learned = network.splits_variance and has_variance
        read = scheduler_of(str(found), scheduler, learned)
        overrides, notes = [*overrides, *read.overrides], read.notes
        learned = learned or scheduler.get("variance_type") == "learned_range"
    elif has_variance:
        overrides.append("variance=learned_range")
    if network.out_channels != network.channels * (1 + learned):
        raise UserError(
            f"{where}: out_channels is {network.out_channels}; allowed: {network.channels}, as in_channels, or "
            f"{2 * network.channels} with variance_type learned_range"
        )
    file = next((inner / name for name in WEIGHTS if (inner / name).is_file()), None)
    if file is None:
        raise UserError(f"{inner} holds no weights; allowed: {' or '.join(WEIGHTS)}")
    weights = read_weights(file)
    return Imported(
        overrides,
        network.channels,
        network.image_size,
        network.num_classes,
        lambda model: network.rename(weights, model),
        notes,
    )


def _read_unet(inner: Path, config: Mapping[str, Any]) -> ReadNetwork:
    """A `UNet2DModel`'s config in a folder."""
    model, image_size = unet_of(str(inner / NETWORK_FILE), config)
    num_classes = config.get("num_class_embeds")
    classes = class_overrides(num_classes)
    if num_classes is not None and any((place / RECORD_FILE).is_file() for place in (inner, inner.parent)):
        num_classes, classes = num_classes - 1, ["conditions=[class_label]"]
    return ReadNetwork(
        ["model=unet", *settings("model", model), *classes],
        config.get("in_channels", 3),
        config.get("out_channels", 3),
        image_size,
        num_classes,
        lambda weights, model: from_diffusers(weights, model, num_classes),
        splits_variance=False,
    )


def _read_dit(inner: Path, config: Mapping[str, Any]) -> ReadNetwork:
    """A `DiTTransformer2DModel`'s config in a folder; its table of classes ends with one for "no label"."""
    model = dit_of(str(inner / NETWORK_FILE), config)
    channels = config.get("in_channels", 4)
    return ReadNetwork(
        ["model=dit_b", *settings("model", model), "conditions=[class_label]"],
        channels,
        config.get("out_channels") or channels,
        config.get("sample_size", 32),
        config.get("num_embeds_ada_norm", DIT_CLASSES),
        from_diffusers_dit,
        splits_variance=True,
    )


READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], ReadNetwork]] = {UNET: _read_unet, DIT: _read_dit}
"""The reader of a network's config, by the network's class."""


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


class WrittenNetwork(NamedTuple):
    """How a network of ours becomes one of diffusers.

    Attributes:
        kind: its class there.
        config: its arguments, called with our network's parameters, the channels of input and output, the image's side
            and the number of classes.
        rename: gives weights their names there.
    """

    kind: str
    config: Callable[[Model, int, int, int, int | None], dict[str, Any]]
    rename: Callable[[StateDict, Model], dict[str, Tensor]]


WRITERS: Mapping[type[nn.Module], WrittenNetwork] = {
    UNet: WrittenNetwork(UNET, unet_2d_config, to_diffusers),
    DiT: WrittenNetwork(DIT, transformer_config, to_diffusers_dit),
}
"""What a network becomes, by our class."""


def write_folder(
    out: Path,
    denoiser: Denoiser,
    sampler: Sampler,
    model: Model,
    channels: int,
    image_size: int,
    num_classes: int | None,
    record: Mapping[str, Any],
) -> list[str]:
    """Write a model as a pipeline: a U-Net as a `DDIMPipeline` if its sampler is DDIM, else as a `DDPMPipeline`.

    Of a DiT there is no pipeline without an autoencoder: network and scheduler are written alone.

    Args:
        out: the folder; what it holds already is replaced file by file.
        denoiser: the model.
        sampler: decides the scheduler, with its timestep spacing and thresholding.
        model: the parameters of its network, see `renaming.Model`.
        channels: of an image.
        image_size: the side of an image in pixels.
        num_classes: of its labels; None without.
        record: plain values to be kept in langevin.json, which also records that the table of classes ends with a row
            for "no label".

    Returns:
        what is to be known when it is sampled from in diffusers, a sentence each.

    Raises:
        UserError: when diffusers has no such thing; nothing is written then.
    """
    writer = WRITERS.get(type(denoiser.network))
    if writer is None:
        name = type(denoiser.network).__name__
        raise UserError(f"model is {name}; allowed: a UNet or a DiT, which diffusers' {UNET} or {DIT} can be")
    out_channels = denoiser.variance.channels(channels)
    config = writer.config(model, channels, out_channels, image_size, num_classes)
    weights = writer.rename(denoiser.network.state_dict(), model)
    parts = denoiser.schedule, denoiser.parameterization, denoiser.variance, sampler
    scheduler = scheduler_config(*parts, splits_variance=writer.kind == DIT)
    place = PLACES[writer.kind]
    write_weights(out / place / WEIGHTS[0], weights)
    write_json(out / place / NETWORK_FILE, {"_class_name": writer.kind, "_diffusers_version": VERSION, **config})
    write_json(out / "scheduler" / SCHEDULER_FILE, scheduler)
    write_json(out / RECORD_FILE, record)
    notes = notes_on(denoiser.schedule, sampler)
    name = scheduler["_class_name"]
    if writer.kind == DIT:
        assert num_classes is not None
        return [*notes, *_without_pipeline(out, name, num_classes)]
    index = {"scheduler": ["diffusers", name], "unet": ["diffusers", UNET]}
    pipeline = "DDIMPipeline" if name == "DDIMScheduler" else "DDPMPipeline"
    write_json(out / INDEX, {"_class_name": pipeline, "_diffusers_version": VERSION, **index})
    if num_classes is not None:
        notes.append(
            f"diffusers' pipelines pass no labels to a network; load it with {UNET}.from_pretrained({str(out)!r}, "
            f"subfolder='unet') and give it class_labels, 0 to {num_classes - 1}, {num_classes} for none"
        )
    return notes


def _without_pipeline(out: Path, scheduler: str, num_classes: int) -> list[str]:
    """What to know of a DiT's folder, which is no pipeline."""
    parts = f"{DIT}.from_pretrained({str(out)!r}, subfolder='transformer') and {scheduler}.from_pretrained(..., "
    notes = [f"DiTPipeline also needs an autoencoder, which is not part of it: load {parts}subfolder='scheduler')"]
    if num_classes != DIT_CLASSES:
        notes.append(f"DiTPipeline guides with class {DIT_CLASSES} for no label; here that is {num_classes}")
    return notes


def write_weights(file: Path, weights: StateDict, metadata: Mapping[str, str] | None = None) -> None:
    """Write named tensors as safetensors, with texts beside them."""
    whole: dict[str, Tensor] = {name: tensor.contiguous() for name, tensor in weights.items()}
    content = safetensors.torch.save(whole, {"format": "pt", **(metadata or {})})
    write_atomically(file, lambda opened: opened.write(content))


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a config."""
    write_atomically(file, lambda opened: opened.write(json.dumps(content, indent=2).encode() + b"\n"))
