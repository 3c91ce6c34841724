"""Folders of diffusers as models: a pipeline, or a network of it alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from langevin.errors import UserError
from langevin.interop.autoencoders import read_part
from langevin.interop.controlnet import (
    BASE,
    CONTROL,
    PLACE,
    read_control,
    require_factor,
)
from langevin.interop.diffusers import completed, from_diffusers, unet_of
from langevin.interop.dit import dit_of, from_diffusers_dit
from langevin.interop.folder import (
    INDEX,
    NETWORK_FILE,
    SCHEDULER_FILE,
    read_json,
    read_network,
)
from langevin.interop.imported import Imported, ImportedCodec, refuse_latents
from langevin.interop.origin import RECORD_FILE
from langevin.interop.pipeline_index import (
    AUTOENCODER_PLACES,
    DIT,
    DIT_CLASSES,
    ENLARGING,
    LATENT,
    OF_DIT,
    OLD,
    PIPELINES,
    PLACES,
    SCALES,
    UNET,
    UNKNOWN_FACTOR,
)
from langevin.interop.renaming import Model, StateDict, class_overrides, settings
from langevin.interop.schedulers import EULER, scheduler_of
from langevin.interop.stable_diffusion import (
    LATENT_CHANNELS,
    STABLE,
    STABLE_CONTROL,
    TEXT_CHOICES,
    left_out,
    read_text,
)
from langevin.interop.text_unet import attends_to_text, from_text_unet, text_unet_of
from langevin.interop.textless_unet import from_textless, textless_of


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
        notes: what is chosen here, a sentence each.
        token_channels: the size of the tokens of text that it attends to; None: it sees no text.
    """

    overrides: list[str]
    channels: int
    out_channels: int
    image_size: int
    num_classes: int | None
    rename: Callable[[StateDict, Model], dict[str, Tensor]]
    splits_variance: bool
    notes: tuple[str, ...] = ()
    token_channels: int | None = None


def is_folder(place: Path) -> bool:
    """Whether a place is a folder of diffusers."""
    files = (INDEX, NETWORK_FILE, *(f"{inner}/{NETWORK_FILE}" for inner in PLACES.values()))
    return any((place / name).is_file() for name in files)


def read_folder(folder: Path) -> Imported:
    """Read a folder of diffusers: a network's folder and scheduler/, or the files of both at its root, or a network.

    A class-conditional `UNet2DModel` has as many classes as rows of its table, but for one that we wrote ourselves.

    A folder that has an autoencoder too, as `vae/` or `vqvae/`, is that of a model of its latents. One whose network
    attends to text has an encoder of text, `text_encoder/` and `tokenizer/`. A `controlnet/` is an adapter beside it.

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
        if place is None and index["_class_name"] in (LATENT, OF_DIT, ENLARGING, STABLE, STABLE_CONTROL):
            text = f"_class_name is {index['_class_name']}, whose autoencoder is not there"
            raise UserError(f"{folder / INDEX}: {text}; allowed: with it, in vae/ or vqvae/")
        if index["_class_name"] == STABLE_CONTROL and not (folder / PLACE).is_dir():
            raise UserError(f"{folder / INDEX}: its {CONTROL} is not there; allowed: with it, in {PLACE}/")
    inner = next((folder / name for name in PLACES.values() if (folder / name).is_dir()), folder)
    config = read_json(inner / NETWORK_FILE)
    where = str(inner / NETWORK_FILE)
    if config.get("_class_name") == CONTROL:
        allowed = f"a folder with this in {PLACE}/ and the network that it controls in unet/"
        raise UserError(f"import={folder}: is a {CONTROL}; allowed: {allowed}")
    refuse_kind(folder, config.get("_class_name", UNET), (*PLACES, *OLD), place)
    kind = completed(where, config, {"_class_name": (UNET, f"Literal{[*PLACES, *OLD]}")})["_class_name"]
    network = READERS[OLD.get(kind, kind)](inner, config)
    if network.token_channels is not None:
        choices = read_text(folder, where, network.token_channels)
        network = network._replace(overrides=[*network.overrides, *choices])
    weights = read_network(inner)
    control = None
    if (folder / PLACE).is_dir():
        control = read_control(folder / PLACE, kind, config, network.overrides, network.num_classes)
        network = network._replace(overrides=control.overrides, rename=control.rename, notes=control.notes)
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
    imported = Imported(
        overrides,
        network.channels,
        network.image_size,
        network.num_classes,
        lambda model: network.rename(weights, model),
        (*network.notes, *notes, *left_out(folder)),
        text=None if network.token_channels is None else folder,
    )
    imported = imported if place is None else in_latents(imported, place, enlarges)
    if control is not None:
        require_factor(folder / PLACE, control, imported.image_size // network.image_size)
    return imported


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
    """The config in a folder of a `UNet2DModel`, or of a `UNet2DConditionModel`."""
    if attends_to_text(config):
        return _read_text_unet(inner, config)
    textless = config.get("_class_name") == BASE
    read, rename, channels = (textless_of, from_textless, 4) if textless else (unet_of, from_diffusers, 3)
    model, image_size = read(str(inner / NETWORK_FILE), config)
    num_classes = config.get("num_class_embeds")
    classes = class_overrides(num_classes)
    if num_classes is not None and any((place / RECORD_FILE).is_file() for place in (inner, inner.parent)):
        num_classes, classes = num_classes - 1, ["conditions=[class_label]"]
    return ReadNetwork(
        ["model=unet", *settings("model", model), *classes],
        config.get("in_channels", channels),
        config.get("out_channels", channels),
        image_size,
        num_classes,
        lambda weights, model: rename(weights, model, num_classes),
        splits_variance=False,
    )


def _read_text_unet(inner: Path, config: Mapping[str, Any]) -> ReadNetwork:
    """The config in a folder of a `UNet2DConditionModel` that attends to text."""
    model, image_size, token_channels = text_unet_of(str(inner / NETWORK_FILE), config)
    return ReadNetwork(
        ["model=unet", *settings("model", model), *TEXT_CHOICES],
        config.get("in_channels", LATENT_CHANNELS),
        config.get("out_channels", LATENT_CHANNELS),
        image_size,
        None,
        from_text_unet,
        splits_variance=False,
        token_channels=token_channels,
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


READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], ReadNetwork]] = {
    UNET: _read_unet,
    DIT: _read_dit,
    BASE: _read_unet,
}
"""The reader of a network's config, by the network's class."""
