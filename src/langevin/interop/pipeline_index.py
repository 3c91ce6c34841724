"""Which pipeline of diffusers the parts of a model make, and what to know of it."""

from collections.abc import Mapping
from pathlib import Path

from langevin.interop.autoencoders import KL
from langevin.interop.controlnet import BASE, notes_on_parts
from langevin.interop.folder import DiffusersPart
from langevin.interop.schedulers import DDIM
from langevin.interop.stable_diffusion import STABLE, STABLE_CONTROL

UNET, DIT = "UNet2DModel", "DiTTransformer2DModel"
PLACES = {UNET: "unet", DIT: "transformer", BASE: "unet"}
"""Where in its folder a pipeline has its network, by the network's class."""
OLD = {"Transformer2DModel": DIT}
"""What classes were once called."""
LATENT, OF_DIT, ENLARGING = "LDMPipeline", "DiTPipeline", "LDMSuperResolutionPipeline"
PIPELINES = ("DDPMPipeline", "DDIMPipeline", LATENT, OF_DIT, ENLARGING, STABLE, STABLE_CONTROL)
AUTOENCODER_PLACES = ("vae", "vqvae")
"""Where a pipeline has its autoencoder: the latter in an `LDMPipeline`, whatever the autoencoder's class."""
UNKNOWN_FACTOR = (
    "its autoencoder names no scaling_factor, so its latents are not scaled; diffusers itself takes Stable Diffusion's "
    "there: codec.scaling=0.18215"
)
"""Said of a `VQModel` whose config is older than that field."""
SCALES = "scales the low-resolution image like a noisy one"
"""What a Euler scheduler does beside images, in words."""
DIT_CLASSES = 1000
"""DiTPipeline takes this label for none."""


def pipeline_of(
    kind: str,
    scheduler: str,
    num_classes: int | None,
    autoencoder: DiffusersPart | None,
    has_text: bool,
    enlarges: bool = False,
    is_controlled: bool = False,
) -> str | None:
    """The pipeline of a network of some class, None where there is none; a U-Net's passes no labels on."""
    if enlarges:
        return ENLARGING
    if kind == BASE:
        if not has_text or autoencoder is None or autoencoder.kind != KL:
            return None
        return STABLE_CONTROL if is_controlled else STABLE
    if kind == DIT:
        return None if autoencoder is None else OF_DIT
    if autoencoder is not None:
        return LATENT if num_classes is None else None
    return "DDIMPipeline" if scheduler == DDIM else "DDPMPipeline"


def notes_on_pipeline(
    out: Path, pipeline: str | None, parts: Mapping[str, DiffusersPart], scheduler: str, num_classes: int | None
) -> list[str]:
    """What to know of the parts of a folder, and of its pipeline, a sentence each."""
    notes = notes_on_parts(out, parts)
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
        kind = parts[PLACES[UNET]].kind
        notes.append(
            f"diffusers' pipelines pass no labels to a network; load it with {kind}.from_pretrained({str(out)!r}, "
            f"subfolder='unet') and give it class_labels, 0 to {num_classes - 1}, {num_classes} for none"
        )
        if "vae" in parts:
            notes.append(
                f"its latents z are decoded by vae.decode(z / vae.config.scaling_factor).sample, where vae is "
                f"{parts['vae'].kind}.from_pretrained({str(out)!r}, subfolder='vae')"
            )
    return notes
