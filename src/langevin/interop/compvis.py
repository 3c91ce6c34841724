"""Autoencoders of CompVis' latent-diffusion and of Stable Diffusion's original checkpoints."""

import math

from langevin.errors import UserError
from langevin.interop.autoencoder_weights import CODES, COMPVIS, renamed
from langevin.interop.autoencoders import KL, VQ, choices
from langevin.interop.imported import Imported
from langevin.interop.renaming import Renaming, StateDict
from langevin.networks.blocks.block import NORM_EPSILON, NORM_GROUPS

CHECKPOINT = ".ckpt"
FIRST_STAGE = "first_stage_model."
"""The prefix of an autoencoder's weights among those of a whole latent diffusion model."""
SKIPPED = ("loss.", "model_ema.")
"""What a checkpoint of its training holds beside: the loss with its discriminator and LPIPS, and averaged weights."""
IMAGE_SIZE = 256
"""Of the images of all published autoencoders of CompVis, in whose weights it does not show."""


def is_compvis(weights: StateDict) -> bool:
    """Whether these are the weights of an autoencoder of CompVis, or of a latent diffusion model that holds one."""
    return any(name.removeprefix(FIRST_STAGE).startswith("encoder.down.0.block.") for name in weights)


def read_compvis(state_dict: StateDict) -> Imported:
    """Read an autoencoder of CompVis' latent-diffusion, whose architecture shows in its weights.

    Args:
        state_dict: of their `AutoencoderKL`, `VQModel` or `VQModelInterface`, or of a whole `LatentDiffusion` that has
            one as its first stage. The weights of the loss are skipped.

    Raises:
        UserError: when a weight is missing, or ours has no such part.
    """
    stage = any(name.startswith(FIRST_STAGE) for name in state_dict)
    weights = {
        name.removeprefix(FIRST_STAGE): tensor
        for name, tensor in state_dict.items()
        if name.startswith(FIRST_STAGE) or not stage
    }
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(SKIPPED)}
    names = Renaming(weights, COMPVIS)
    first, after, before = (
        names.take(f"{name}.weight") for name in ("encoder.conv_in", "post_quant_conv", "quant_conv")
    )
    attention = next((name for name in weights if ".attn." in name), None)
    if attention is not None:
        raise UserError(f"weights: '{attention}' is unknown; allowed: autoencoders with attention in the middle alone")
    levels, blocks = (_count(weights, prefix) for prefix in ("encoder.down.", "encoder.down.0.block."))
    widths = [len(names.take(f"encoder.down.{level}.block.0.conv2.weight")) for level in range(levels)]
    kind = VQ if f"{CODES.compvis}.weight" in weights else KL
    if before.shape[0] != before.shape[1] or after.shape[0] != after.shape[1]:
        text = f"'post_quant_conv.weight' maps {after.shape[1]} channels to {after.shape[0]}"
        raise UserError(
            f"weights: {text}; allowed: as many latents as channels of the decoder (embed_dim = z_channels)"
        )
    channels = math.gcd(*widths)
    fields = {
        "latent_channels": after.shape[1],
        "channels": channels,
        "channel_multipliers": [width // channels for width in widths],
        "blocks_per_level": blocks,
        "middle_attention": "encoder.mid.attn_1.q.weight" in weights,
        "norm_groups": NORM_GROUPS,
        "norm_epsilon": NORM_EPSILON,
    }
    if kind == VQ:
        fields["num_codes"] = len(names.take(f"{CODES.compvis}.weight"))
    return Imported(
        ["task=autoencoder", *choices(kind, fields)],
        first.shape[1],
        IMAGE_SIZE,
        None,
        lambda model: renamed(weights, model, COMPVIS),
        origin={"class": f"CompVis {kind}"},
    )


def _count(weights: StateDict, prefix: str) -> int:
    """How many numbered parts there are under a name."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})
