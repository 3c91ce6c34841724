"""Weights of OpenAI's networks: improved-diffusion and guided-diffusion (`UNetModel`)."""

import re
from typing import Literal

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.renaming import Model, Renaming, StateDict, linear
from langevin.networks.blocks.attention import number_of_heads

OUTER = {
    "time_embed.0": "time.linear1",
    "time_embed.2": "time.linear2",
    "input_blocks.0.0": "first",
    "out.0": "norm",
    "out.2": "last",
}
LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "embed",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "shortcut",
    "norm": "norm",
    "proj_out": "project",
    "conv": "conv",  # of an upsampling
}
BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)(?:\.(\d+))?\.(.+)\.(?:weight|bias)")


def from_openai(
    state_dict: StateDict, model: Model, attention_order: Literal["legacy", "new"] = "legacy"
) -> dict[str, Tensor]:
    """Give the weights of a `UNetModel` the names they have in our `UNet`.

    Ours is built with `time_embedding="cosine_first"`, `norm_epsilon=1e-5`, and `symmetric_padding` or
    `residual_resampling` (their `resblock_updown`); their first channel multiplier must be 1. A class-conditional
    network gets a vector of zeros for "no label", which theirs has not learned.

    Args:
        state_dict: of their network, which may be on any device.
        model: the parameters of ours, see `renaming.Model`; only the heads are looked at.
        attention_order: how their query, key and value lie: "new" for a network made with `use_new_attention_order`,
            "legacy" for others and for improved-diffusion. The weights do not tell.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming(state_dict, "OpenAI's UNetModel")
    for old, new in OUTER.items():
        names.move(old, new)
    if names.has("label_emb"):
        table = names.take("label_emb.weight")
        names.result["condition.table.weight"] = torch.cat((table, torch.zeros_like(table[:1])))
    while names.rest:
        name = next(iter(names.rest))
        match = BLOCK.fullmatch(name)
        if match is None:
            raise UserError(f"weights: '{name}' is unknown; allowed: the weights of {names.origin}")
        part, step, place, layer = match.groups()
        old = name.rpartition(".")[0]
        if layer == "op":  # a strided convolution stands alone
            names.move(old, f"down.{int(step) - 1}.conv")
            continue
        new = {
            "input_blocks": f"down.{int(step) - 1}.blocks.{place}",
            "middle_block": f"middle.blocks.{step}",
            "output_blocks": f"up.{step}.blocks.{place}",
        }[part]
        if layer == "qkv":
            for kind in ("weight", "bias"):
                parts = names.take(f"{old}.{kind}")
                names.result[f"{new}.qkv.{kind}"] = _query_key_value(parts, model, attention_order)
        elif layer in LAYERS:
            names.move(old, f"{new}.{LAYERS[layer]}")
            if layer == "proj_out":
                names.result[f"{new}.project.weight"] = linear(names.result[f"{new}.project.weight"])
        else:
            raise UserError(f"weights: '{name}' is unknown; allowed: the weights of {names.origin}")
    return names.finished()


def _query_key_value(parts: Tensor, model: Model, attention_order: str) -> Tensor:
    """Put query, key and value, each (heads, channels), one below the other."""
    parts = linear(parts) if parts.ndim > 1 else parts
    if attention_order == "new":
        return parts
    heads = number_of_heads(len(parts) // 3, model.get("heads"), model.get("head_channels"))
    return parts.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
