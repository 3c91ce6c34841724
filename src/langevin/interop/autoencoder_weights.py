"""Weights of autoencoders under our names: diffusers' `AutoencoderKL` and `VQModel`, and CompVis' originals of both.

`fold` builds a scaling of the latents into the weights, for pipelines that know none.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.renaming import Model, Renaming, StateDict, linear
from langevin.interop.unet_layers import QKV, RESIDUAL, today

DIFFUSERS, COMPVIS = "diffusers' autoencoders", "CompVis' autoencoders"
"""Whose names there are, for messages."""


class Layer(NamedTuple):
    """The names of one layer, or of one block, in diffusers, in CompVis' code, and here."""

    diffusers: str
    compvis: str
    ours: str

    def under(self, origin: str) -> str:
        """Its name in another library."""
        return self.diffusers if origin == DIFFUSERS else self.compvis


QKV_OF = {DIFFUSERS: QKV, COMPVIS: ("q", "k", "v")}
CONVOLUTIONS = ("quant_conv", "post_quant_conv")
"""The 1x1 convolutions before and after the latents, by their names in both."""
ATTENTION = (Layer("group_norm", "norm", "norm"), Layer("to_out.0", "proj_out", "project"))
OUTER = (
    *(Layer(conv, conv, ours) for conv, ours in zip(CONVOLUTIONS, ("before", "after"), strict=True)),
    *(
        Layer(f"{half}.{theirs}", f"{half}.{original}", f"{half}.{ours}")
        for half in ("encoder", "decoder")
        for theirs, original, ours in (
            ("conv_in", "conv_in", "first"),
            ("conv_norm_out", "norm_out", "norm"),
            ("conv_out", "conv_out", "last"),
        )
    ),
)
CODES = Layer("quantize.embedding", "quantize.embedding", "codes")


def renamed(state_dict: StateDict, model: Model, origin: str) -> dict[str, Tensor]:
    """Give the weights of an autoencoder of another library the names they have in ours.

    Args:
        state_dict: of theirs; attention may have the names of old versions of diffusers.
        model: the parameters of ours, see `renaming.Model`.
        origin: whose it is: `DIFFUSERS` or `COMPVIS`.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming({today(name): tensor for name, tensor in state_dict.items()}, origin)
    for layer in _layers(model):
        # A residual block has a shortcut only where its width changes.
        if not layer.ours.endswith(".shortcut") or names.has(layer.under(origin)):
            names.move(layer.under(origin), layer.ours)
    for block in _attentions(model):
        theirs = block.under(origin)
        for kind in ("weight", "bias"):
            parts = [names.take(f"{theirs}.{part}.{kind}") for part in QKV_OF[origin]]
            names.result[f"{block.ours}.qkv.{kind}"] = torch.cat(
                [linear(part) if kind == "weight" else part for part in parts]
            )
        for layer in ATTENTION:
            names.move(f"{theirs}.{layer.under(origin)}", f"{block.ours}.{layer.ours}")
        project = f"{block.ours}.project.weight"
        names.result[project] = linear(names.result[project])
    return names.finished()


def to_diffusers(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of our autoencoder the names they have in diffusers: the inverse of `renamed`.

    Args:
        state_dict: of ours.
        model: its parameters, see `renaming.Model`.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming(state_dict, "an autoencoder that diffusers can hold")
    for layer in _layers(model):
        if not layer.ours.endswith(".shortcut") or names.has(layer.ours):
            names.move(layer.ours, layer.diffusers)
    for block in _attentions(model):
        for kind in ("weight", "bias"):
            parts = names.take(f"{block.ours}.qkv.{kind}").chunk(len(QKV))
            for name, part in zip(QKV, parts, strict=True):
                names.result[f"{block.diffusers}.{name}.{kind}"] = part.clone()  # no file holds views of one tensor
        for layer in ATTENTION:
            names.move(f"{block.ours}.{layer.ours}", f"{block.diffusers}.{layer.diffusers}")
    return names.finished()


def fold(state_dict: StateDict, shift: Tensor | float, scale: Tensor | float) -> dict[str, Tensor]:
    """Build a scaling of the latents, ``z' = (z - shift) * scale``, into the 1x1 convolutions around them.

    The result encodes images to the scaled latents, and decodes these to the same images. So a pipeline that knows no
    shift, such as diffusers' `LDMPipeline`, or no scale for each channel, needs none. Means are moved and multiplied,
    and ``2 log(scale)`` is added to log-variances (which are clamped to [-30, 20] after that). The codes of a `VQModel`
    are scaled as the latents are, with which they are compared.

    Args:
        state_dict: of diffusers' `AutoencoderKL` with both convolutions, or `VQModel`; it is not changed.
        shift: a number, or one for each channel of the latents (C,).
        scale: likewise, above 0; of a `VQModel` one number, since the nearest code is found by distances in which all
            channels count alike.

    Raises:
        UserError: when the scale is not above 0, or differs between the channels of a `VQModel`.
    """
    state, codes = dict(state_dict), f"{CODES.diffusers}.weight"
    before, after = ((state[f"{conv}.weight"].double(), state[f"{conv}.bias"].double()) for conv in CONVOLUTIONS)
    channels = after[0].shape[1]
    by, to = (torch.as_tensor(each).double().flatten().expand(channels) for each in (scale, shift))
    if not bool((torch.isfinite(by) & (by > 0)).all()):
        raise UserError(f"scale is {by.tolist()}; allowed: numbers above 0")
    if codes in state and not bool((by == by[0]).all()):
        why = "by another measure another code is the nearest"
        raise UserError(f"scale is {by.tolist()}; allowed: one number for all channels of a VQModel, for {why}")
    # The means, and the log-variances that follow them; a VQModel has none of these.
    weights, biases = (part.split((channels, len(part) - channels)) for part in before)
    folded = {
        "quant_conv.weight": torch.cat((weights[0] * by.reshape(-1, 1, 1, 1), weights[1])),
        "quant_conv.bias": torch.cat(((biases[0] - to) * by, biases[1] + 2 * by.log()[: len(biases[1])])),
        "post_quant_conv.weight": after[0] / by.reshape(-1, 1, 1),
        "post_quant_conv.bias": after[1] + after[0].flatten(1) @ to,
    }
    if codes in state:
        folded[codes] = (state[codes].double() - to) * by
    return state | {name: tensor.to(state[name]) for name, tensor in folded.items()}


def _attentions(model: Model) -> Iterator[Layer]:
    """The attentions."""
    for half in ("encoder", "decoder") if model["middle_attention"] else ():
        yield Layer(f"{half}.mid_block.attentions.0", f"{half}.mid.attn_1", f"{half}.middle.1")


def _residuals(model: Model) -> Iterator[Layer]:
    """The residual blocks."""
    levels, blocks = len(model["channel_multipliers"]), model["blocks_per_level"]
    for half in ("encoder", "decoder"):
        for number, ours in enumerate((0, 1 + model["middle_attention"])):
            mid = f"{half}.mid_block.resnets.{number}", f"{half}.mid.block_{number + 1}"
            yield Layer(*mid, f"{half}.middle.{ours}")
    for level in range(levels):
        for step in range(blocks):
            ours = f"encoder.down.{level * (blocks + 1) + step}.blocks.0"
            yield Layer(f"encoder.down_blocks.{level}.resnets.{step}", f"encoder.down.{level}.block.{step}", ours)
        for step in range(blocks + 1):
            original = f"decoder.up.{levels - 1 - level}.block.{step}"  # numbered from the highest resolution
            ours = f"decoder.up.{level * (blocks + 2) + step}"
            yield Layer(f"decoder.up_blocks.{level}.resnets.{step}", original, ours)


def _layers(model: Model) -> Iterator[Layer]:
    """Every layer outside of attention; of those in a residual block, the shortcut may be missing."""
    yield from OUTER
    if "num_codes" in model:
        yield CODES
    for block in _residuals(model):
        for theirs, ours in RESIDUAL.items():
            if ours != "embed":
                original = "nin_shortcut" if ours == "shortcut" else theirs
                yield Layer(f"{block.diffusers}.{theirs}", f"{block.compvis}.{original}", f"{block.ours}.{ours}")
    levels, blocks = len(model["channel_multipliers"]), model["blocks_per_level"]
    for level in range(levels - 1):
        down = f"encoder.down.{(level + 1) * (blocks + 1) - 1}.conv"
        yield Layer(f"encoder.down_blocks.{level}.downsamplers.0.conv", f"encoder.down.{level}.downsample.conv", down)
        original = f"decoder.up.{levels - 1 - level}.upsample.conv"
        up = f"decoder.up.{(level + 1) * (blocks + 2) - 1}.conv"
        yield Layer(f"decoder.up_blocks.{level}.upsamplers.0.conv", original, up)
