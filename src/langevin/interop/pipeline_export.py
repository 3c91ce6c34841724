"""Models as folders of diffusers: a pipeline, or its parts alone."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from langevin.conditions.hint import Hint
from langevin.diffusion.denoiser import Denoiser
from langevin.errors import UserError
from langevin.interop.controlnet import (
    BASE,
    PLACE,
    control_part,
    notes_on_hints,
)
from langevin.interop.diffusers import to_diffusers, unet_2d_config
from langevin.interop.dit import to_diffusers_dit, transformer_config
from langevin.interop.folder import (
    INDEX,
    SCHEDULER_FILE,
    VERSION,
    DiffusersPart,
    write_json,
)
from langevin.interop.origin import RECORD_FILE
from langevin.interop.pipeline_index import (
    DIT,
    ENLARGING,
    LATENT,
    PLACES,
    SCALES,
    UNET,
    notes_on_pipeline,
    pipeline_of,
)
from langevin.interop.renaming import Model, StateDict
from langevin.interop.scheduler_config import notes_on, scheduler_config
from langevin.interop.schedulers import EULER
from langevin.interop.stable_diffusion import (
    TEXT_PARTS,
    copy_encoder,
    notes_on_text,
)
from langevin.interop.text_unet import text_unet_config, to_text_unet
from langevin.interop.textless_unet import is_textless, textless_config, to_textless
from langevin.networks.dit import DiT
from langevin.networks.unet import UNet
from langevin.samplers.sampler import Sampler
from langevin.text.frozen import FrozenTextEncoder


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
TEXTLESS = WrittenNetwork(BASE, textless_config, to_textless)
"""What a U-Net becomes that is no `UNet2DModel`, see `is_textless`."""


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
    text: FrozenTextEncoder | None = None,
    enlarges: bool = False,
) -> list[str]:
    """Write a model as a pipeline: a U-Net as a `DDIMPipeline` if its sampler is DDIM, else as a `DDPMPipeline`.

    With an adapter, or without attention in its middle, it is a `UNet2DConditionModel`, of which there is no pipeline
    without text.

    In the latents of an autoencoder, a U-Net without classes is an `LDMPipeline`, or an `LDMSuperResolutionPipeline`
    where it takes images of the latents' size beside them, and a DiT a `DiTPipeline`. Of a U-Net
    of classes there is no pipeline then, and of a DiT none without an autoencoder: the parts are written alone. With an
    encoder of text it is a `StableDiffusionPipeline`, with an adapter too a `StableDiffusionControlNetPipeline`.

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
        text: CLIP, to whose tokens its network attends; None: to none.
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
    if text is None and is_textless(model):
        writer = TEXTLESS
    if text is not None:
        if writer is not WRITERS[UNet]:
            raise UserError(f"model becomes a {writer.kind}; allowed: a UNet in diffusers' pipelines of text")
        writer = WrittenNetwork(BASE, partial(_text_config, text), to_text_unet)
    out_channels = denoiser.variance.channels(channels)
    config = writer.config(model, channels * (1 + enlarges), out_channels, image_size, num_classes)
    weights = writer.rename(denoiser.network.state_dict(), model)
    parts = denoiser.schedule, denoiser.parameterization, denoiser.variance, sampler
    scheduler = scheduler_config(*parts, splits_variance=writer.kind == DIT)
    name = scheduler["_class_name"]
    if enlarges and (writer.kind != UNET or num_classes is not None or name == EULER):
        why = f"{ENLARGING} passes no labels on, and with {EULER} {SCALES}"
        raise UserError(f"model: allowed beside images: a UNet without classes, and another sampler than euler: {why}")
    controlled = bool(model.get("control", False))
    pipeline = pipeline_of(writer.kind, name, num_classes, autoencoder, text is not None, enlarges, controlled)
    written = {PLACES[writer.kind]: DiffusersPart(writer.kind, config, weights)}
    if controlled:
        hints = sum(part.concat_channels for part in denoiser.network.modules() if isinstance(part, Hint))
        written[PLACE] = control_part(config, denoiser.network.state_dict(), model, hints)
    if autoencoder is not None:
        written["vqvae" if pipeline in (LATENT, ENLARGING) else "vae"] = autoencoder
    for inner, part in written.items():
        part.write(out / inner)
    if text is not None:
        copy_encoder(text, out)
    write_json(out / "scheduler" / SCHEDULER_FILE, scheduler)
    write_json(out / RECORD_FILE, record)
    if pipeline is None:
        (out / INDEX).unlink(missing_ok=True)  # of what was there before
    else:
        classes = {inner: ["diffusers", part.kind] for inner, part in written.items()}
        index = {"scheduler": ["diffusers", name], **classes, **(TEXT_PARTS if text is not None else {})}
        write_json(out / INDEX, {"_class_name": pipeline, "_diffusers_version": VERSION, **index})
    notes = notes_on(denoiser.schedule, sampler)
    if text is not None:
        of_text = notes_on_text(out, pipeline, scheduler)
        return [*notes, *of_text, *([] if pipeline is None else notes_on_hints(written))]
    return [*notes, *notes_on_pipeline(out, pipeline, written, name, num_classes)]


def _text_config(
    text: FrozenTextEncoder, model: Model, in_channels: int, out_channels: int, image_size: int, _: int | None
) -> dict[str, Any]:
    assert text.token_channels is not None
    return text_unet_config(model, in_channels, out_channels, image_size, text.token_channels)
