"""Folders of diffusers, both ways: a pipeline, or a network of it alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from langevin.diffusion.denoiser import Denoiser
from langevin.errors import UserError
from langevin.interop.autoencoders import KL, read_part
from langevin.interop.diffusers import completed, from_diffusers, to_diffusers, unet_2d_config, unet_of
from langevin.interop.dit import dit_of, from_diffusers_dit, to_diffusers_dit, transformer_config
from langevin.interop.folder import (
    INDEX,
    NETWORK_FILE,
    SCHEDULER_FILE,
    VERSION,
    DiffusersPart,
    read_json,
    read_network,
    write_json,
)
from langevin.interop.imported import Imported, ImportedCodec, refuse_latents
from langevin.interop.origin import RECORD_FILE
from langevin.interop.renaming import Model, StateDict, class_overrides, settings
from langevin.interop.scheduler_config import notes_on, scheduler_config
from langevin.interop.schedulers import DDIM, EULER, scheduler_of
from langevin.networks.dit import DiT
from langevin.networks.unet import UNet
from langevin.samplers.sampler import Sampler

UNET, DIT = "UNet2DModel", "DiTTransformer2DModel"
PLACES = {UNET: "unet", DIT: "transformer"}
"""Where in its folder a pipeline has its network, by the network's class."""
OLD = {"Transformer2DModel": DIT}
"""What classes were once called."""
LATENT, OF_DIT, ENLARGING = "LDMPipeline", "DiTPipeline", "LDMSuperResolutionPipeline"
PIPELINES = ("DDPMPipeline", "DDIMPipeline", LATENT, OF_DIT, ENLARGING)
AUTOENCODER_PLACES = ("vae", "vqvae")
"""Where a pipeline has its autoencoder: the latter in an `LDMPipeline`, whatever the autoencoder's class."""
UNKNOWN_FACTOR = (
    "its autoencoder names no scaling_factor, so its latents are not scaled; diffusers itself takes Stable Diffusion's "
    "there: codec.scaling=0.18215"
)
"""Said of a `VQModel` whose config is older than that field."""
SCALES = "scales the low-resolution image like a noisy one"
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

    A folder that has an autoencoder too, as `vae/` or `vqvae/`, is that of a model of its latents.

    Raises:
        UserError: when a file is missing or damaged, or holds something that we have not.
    """
    places = (folder / name for name in AUTOENCODER_PLACES)
    place = next((each for each in places if each.is_dir()), None)
    enlarges = False
    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        refuse_kind(folder, index.get("_class_name"), PIPELINES, place)
        completed(str(folder / INDEX), index, {"_class_name": (None, f"Literal{list(PIPELINES)}")})
        enlarges = index["_class_name"] == ENLARGING
        if place is None and index["_class_name"] in (LATENT, OF_DIT, ENLARGING):
            text = f"_class_name is {index['_class_name']}, whose autoencoder is not there"
            raise UserError(f"{folder / INDEX}: {text}; allowed: with it, in vae/ or vqvae/")
    inner = next((folder / name for name in PLACES.values() if (folder / name).is_dir()), folder)
    config = read_json(inner / NETWORK_FILE)
    where = str(inner / NETWORK_FILE)
    refuse_kind(folder, config.get("_class_name", UNET), (*PLACES, *OLD), place)
    kind = completed(where, config, {"_class_name": (UNET, f"Literal{[*PLACES, *OLD]}")})["_class_name"]
    network = READERS[OLD.get(kind, kind)](inner, config)
    network = beside_images(where, network) if enlarges else network
    if place is None:
        around = [folder.parent / name for name in AUTOENCODER_PLACES if folder.name in PLACES.values()]
        if any(each.is_dir() for each in around):
            raise UserError(f"import={folder}: diffuses latents; allowed: the pipeline, import={folder.parent}")
        refuse_latents(folder, network.channels)

    schedulers = [folder / "scheduler" / SCHEDULER_FILE, folder / SCHEDULER_FILE]
    found = next((file for file in schedulers if file.is_file()), None)
    has_variance = network.out_channels == 2 * network.channels
    learned, overrides = has_variance, [*network.overrides]
    notes: tuple[str, ...] = ()
    if found is not None:
        scheduler = read_json(found)
        if enlarges and scheduler.get("_class_name") == EULER:
            raise UserError(f"{found}: _class_name is {EULER}, with which {ENLARGING} {SCALES}; allowed: another")
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
    weights = read_network(inner)
    imported = Imported(
        overrides,
        network.channels,
        network.image_size,
        network.num_classes,
        lambda model: network.rename(weights, model),
        notes,
    )
    return imported if place is None else in_latents(imported, place, enlarges)


def refuse_kind(folder: Path, kind: Any, known: Sequence[str], autoencoder: Path | None) -> None:
    """Refuse a pipeline, or a network, of a class that we have not, of which only the autoencoder can be imported.

    Raises:
        UserError: when it is one.
    """
    if autoencoder is not None and isinstance(kind, str) and kind not in known:
        raise UserError(
            f"import={folder}: has a {kind}; allowed: {', '.join(known)}; or its autoencoder alone, with "
            f"import={autoencoder}"
        )


def beside_images(where: str, network: ReadNetwork) -> ReadNetwork:
    """The network of an `LDMSuperResolutionPipeline`, of whose input the second half is a low-resolution image.

    Raises:
        UserError: when it has no such input, or classes, which the pipeline does not pass on.
    """
    if network.channels % 2:
        raise UserError(f"{where}: in_channels is {network.channels}; allowed: the latents', and as many of an image")
    if network.num_classes is not None:
        raise UserError(f"{where}: has classes, which {ENLARGING} does not pass on; allowed: num_class_embeds null")
    own = [each for each in network.overrides if not each.startswith("conditions")]
    own += ["conditions=[low_res]", *settings("conditions.low_res", {"size": network.image_size})]
    return network._replace(overrides=own, channels=network.channels // 2)


def in_latents(imported: Imported, place: Path, enlarges: bool) -> Imported:
    """A model that was imported as if it were one of images, as the model in the latents of an autoencoder that it is.

    Args:
        imported: of the pipeline's other parts.
        place: the autoencoder's folder.
        enlarges: whether the network also takes images, beside which latents are neither scaled nor shifted.

    Raises:
        UserError: when the autoencoder cannot be read, or has other latents.
    """
    where, read = str(place / NETWORK_FILE), read_part(place)
    channels, latents = read.config["in_channels"], read.config["latent_channels"]
    if latents != imported.channels:
        raise UserError(f"{where}: latent_channels is {latents}; allowed: {imported.channels}, as the network has")
    for name in ("latents_mean", "latents_std"):
        if read.config.get(name) is not None:
            raise UserError(f"{where}: {name} is given; allowed: null, for these pipelines make no use of it")
    if enlarges and channels != latents:
        raise UserError(f"{where}: in_channels is {channels}; allowed: {latents}, as latents have in {ENLARGING}")
    factor, notes = 1.0 if enlarges else read.config["scaling_factor"], imported.notes
    if factor is None:
        factor, notes = 1.0, (*notes, UNKNOWN_FACTOR)
    codec = {"run": None, "scaling": float(factor), "channels": channels}
    return imported._replace(
        overrides=[*imported.overrides, "codec=autoencoder", *settings("codec", codec), *read.overrides],
        channels=channels,
        image_size=imported.image_size * 2 ** (len(read.config["block_out_channels"]) - 1),
        notes=notes,
        origin={"autoencoder": read.origin["class"]},
        codec=ImportedCodec(read.rename, 0.0 if enlarges else read.config.get("shift_factor") or 0.0),
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
    autoencoder: DiffusersPart | None = None,
    enlarges: bool = False,
) -> list[str]:
    """Write a model as a pipeline: a U-Net as a `DDIMPipeline` if its sampler is DDIM, else as a `DDPMPipeline`.

    In the latents of an autoencoder, a U-Net without classes is an `LDMPipeline`, or an `LDMSuperResolutionPipeline`
    where it takes images of the latents' size beside them, and a DiT a `DiTPipeline`. Of a U-Net
    of classes there is no pipeline then, and of a DiT none without an autoencoder: the parts are written alone.

    Args:
        out: the folder; what it holds already is replaced file by file.
        denoiser: the model.
        sampler: decides the scheduler, with its timestep spacing and thresholding.
        model: the parameters of its network, see `renaming.Model`.
        channels: of what is diffused.
        image_size: its side.
        num_classes: of its labels; None without.
        record: plain values to be kept in langevin.json, which also records that the table of classes ends with a row
            for "no label".
        autoencoder: in whose latents it diffuses; None: it is a model of images.
        enlarges: whether the network takes an image beside the latents, of as many channels.

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
    config = writer.config(model, channels * (1 + enlarges), out_channels, image_size, num_classes)
    weights = writer.rename(denoiser.network.state_dict(), model)
    parts = denoiser.schedule, denoiser.parameterization, denoiser.variance, sampler
    scheduler = scheduler_config(*parts, splits_variance=writer.kind == DIT)
    name = scheduler["_class_name"]
    if enlarges and (writer.kind == DIT or num_classes is not None or name == EULER):
        text = f"{ENLARGING} passes no labels on, and with {EULER} {SCALES}"
        raise UserError(f"model: allowed beside images: a UNet without classes, and another sampler than euler: {text}")
    pipeline = ENLARGING if enlarges else pipeline_of(writer.kind, name, num_classes, autoencoder)
    written = {PLACES[writer.kind]: DiffusersPart(writer.kind, config, weights)}
    if autoencoder is not None:
        written["vqvae" if pipeline in (LATENT, ENLARGING) else "vae"] = autoencoder
    for inner, part in written.items():
        part.write(out / inner)
    write_json(out / "scheduler" / SCHEDULER_FILE, scheduler)
    write_json(out / RECORD_FILE, record)
    if pipeline is None:
        (out / INDEX).unlink(missing_ok=True)  # of what was there before
    else:
        classes = {inner: ["diffusers", part.kind] for inner, part in written.items()}
        index = {"scheduler": ["diffusers", name], **classes}
        write_json(out / INDEX, {"_class_name": pipeline, "_diffusers_version": VERSION, **index})
    return [*notes_on(denoiser.schedule, sampler), *notes_on_pipeline(out, pipeline, written, name, num_classes)]


def pipeline_of(kind: str, scheduler: str, num_classes: int | None, autoencoder: DiffusersPart | None) -> str | None:
    """The pipeline of a network of some class, None where there is none; a U-Net's passes no labels on."""
    if kind == DIT:
        return None if autoencoder is None else OF_DIT
    if autoencoder is not None:
        return LATENT if num_classes is None else None
    return "DDIMPipeline" if scheduler == DDIM else "DDPMPipeline"


def notes_on_pipeline(
    out: Path, pipeline: str | None, parts: Mapping[str, DiffusersPart], scheduler: str, num_classes: int | None
) -> list[str]:
    """What to know of the parts of a folder, and of its pipeline, a sentence each."""
    notes = []
    if pipeline in (LATENT, ENLARGING) and parts["vqvae"].kind == KL:
        notes.append(f"{pipeline} warns that it expects a VQModel; with this {KL} it makes the same images")
    if PLACES[DIT] in parts:
        assert num_classes is not None
        if pipeline is None:
            load = f"{DIT}.from_pretrained({str(out)!r}, subfolder='transformer') and {scheduler}.from_pretrained(..., "
            notes.append(
                f"{OF_DIT} also needs an autoencoder, which is not part of it: load {load}subfolder='scheduler')"
            )
        if num_classes != DIT_CLASSES:
            notes.append(
                f"{OF_DIT} guides with class {DIT_CLASSES} for no label; here that is {num_classes}"
                + ("" if pipeline is None else ", so call it with guidance_scale=1")
            )
    elif num_classes is not None:
        notes.append(
            f"diffusers' pipelines pass no labels to a network; load it with {UNET}.from_pretrained({str(out)!r}, "
            f"subfolder='unet') and give it class_labels, 0 to {num_classes - 1}, {num_classes} for none"
        )
        if "vae" in parts:
            notes.append(
                f"its latents z are decoded by vae.decode(z / vae.config.scaling_factor).sample, where vae is "
                f"{parts['vae'].kind}.from_pretrained({str(out)!r}, subfolder='vae')"
            )
    return notes
