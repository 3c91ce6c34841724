"""Weights and configs of diffusers' `UNet2DModel`, both ways; diffusers itself is not needed."""

import ast
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from langevin.config.types import describe, fits
from langevin.errors import UserError
from langevin.interop.renaming import Model, Renaming, StateDict
from langevin.interop.unet_layers import to_ours, to_theirs, today
from langevin.networks.blocks.block import NORM_EPSILON, NORM_GROUPS
from langevin.networks.unet import BOX

TABLE = ("class_embedding.weight", "condition.table.weight")
ABSENT = (
    "single_up_attention",
    "map_condition",
    "cross_attention",
    "skip_rescale",
    "resample_projection",
    "progressive_input",
    "control",
)
"""Switches of ours without a counterpart in a `UNet2DModel` of the usual blocks."""

Known = Mapping[str, tuple[Any, str]]
"""The fields of a config: by name, diffusers' default and the type that is allowed here."""
UNET: Known = {
    "sample_size": (None, "Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]"),
    "in_channels": (3, "Annotated[int, Ge(1)]"),
    "out_channels": (3, "Annotated[int, Ge(1)]"),
    "center_input_sample": (False, "Literal[False]"),
    "time_embedding_type": ("positional", "Literal['positional']"),
    "time_embedding_dim": (None, "int | None"),
    "freq_shift": (0, "Literal[0, 1]"),
    "flip_sin_to_cos": (True, "bool"),
    "down_block_types": (
        ["DownBlock2D", *["AttnDownBlock2D"] * 3],
        "list[Literal['DownBlock2D', 'AttnDownBlock2D', 'ResnetDownsampleBlock2D']]",
    ),
    "mid_block_type": ("UNetMidBlock2D", "Literal['UNetMidBlock2D']"),
    "up_block_types": (
        [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
        "list[Literal['UpBlock2D', 'AttnUpBlock2D', 'ResnetUpsampleBlock2D']]",
    ),
    "block_out_channels": ([224, 448, 672, 896], "list[Annotated[int, Ge(1)]]"),
    "layers_per_block": (2, "Annotated[int, Ge(1)]"),
    "mid_block_scale_factor": (1, "Literal[1, 1.0]"),
    "downsample_padding": (1, "Literal[0, 1]"),
    "downsample_type": ("conv", "Literal['conv', 'resnet']"),
    "upsample_type": ("conv", "Literal['conv', 'resnet']"),
    "dropout": (0.0, "Annotated[float, Ge(0), Lt(1)]"),
    "act_fn": ("silu", "Literal['silu', 'swish']"),
    "attention_head_dim": (8, "Annotated[int, Ge(1)] | None"),
    "norm_num_groups": (32, "Annotated[int, Ge(1)]"),
    "attn_norm_num_groups": (None, "Annotated[int, Ge(1)] | None"),
    "norm_eps": (1e-5, "Annotated[float, Gt(0)]"),
    "resnet_time_scale_shift": ("default", "Literal['default', 'scale_shift']"),
    "add_attention": (True, "Literal[True]"),
    "class_embed_type": (None, "None"),
    "num_class_embeds": (None, "Annotated[int, Ge(1)] | None"),
    "num_train_timesteps": (None, "int | None"),
}
EMA = {"decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma", "power"}
"""What diffusers' averaging of weights leaves in a network's config."""


def from_diffusers(state_dict: StateDict, model: Model, num_classes: int | None = None) -> dict[str, Tensor]:
    """Give the weights of a `UNet2DModel` the names they have in our `UNet`.

    Args:
        state_dict: of theirs, made of (Attn)Down and (Attn)Up blocks, or Resnet(Down/Up)sample blocks. Its number of
            groups is to be ours. Its attention may have the names of old versions.
        model: the parameters of ours, see `renaming.Model`.
        num_classes: of the data. Our table of classes has one row more, for "no label"; theirs gets one of zeros where
            it has as many rows as there are classes.

    Raises:
        UserError: when a weight is unknown, or one of the outer layers missing, or ours has parts that theirs has not.
    """
    require_common(model)
    names = Renaming({today(name): tensor for name, tensor in state_dict.items()}, "diffusers' UNet2DModel")
    to_ours(names, model)
    theirs, ours = TABLE
    if theirs in names.rest:
        table = names.take(theirs)
        no_label = torch.zeros_like(table[: len(table) == num_classes])
        names.result[ours] = torch.cat((table, no_label))
    return names.finished()


def to_diffusers(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of our `UNet` the names they have in a `UNet2DModel`: the inverse of `from_diffusers`.

    Args:
        state_dict: of ours; its condition may be a `ClassLabel`, whose last row, "no label", stays the last.
        model: its parameters, see `renaming.Model`.

    Raises:
        UserError: when a weight is unknown, or one of the outer layers missing, or ours has parts that theirs has not.
    """
    require_common(model)
    require_groups(model)
    names = Renaming(state_dict, "a UNet that diffusers' UNet2DModel can hold")
    to_theirs(names, model)
    theirs, ours = TABLE
    if ours in names.rest:
        names.result[theirs] = names.take(ours)
    return names.finished()


def unet_2d_config(
    model: Model, in_channels: int, out_channels: int, image_size: int, num_classes: int | None = None
) -> dict[str, Any]:
    """The arguments of the `UNet2DModel` that `to_diffusers` fills.

    Args:
        model: the parameters of our `UNet`, see `renaming.Model`.
        in_channels: of the image.
        out_channels: of the output.
        image_size: height and width of the image.
        num_classes: of a `ClassLabel`; None without labels. Theirs gets one class more, the last, for "no label".

    Raises:
        UserError: when ours has parts that theirs has not.
    """
    require_common(model)
    require_groups(model)
    widths = tuple(model["channels"] * multiplier for multiplier in model["channel_multipliers"])
    attends = [image_size // 2**level in model["attention_resolutions"] for level in range(len(widths))]
    inside = model.get("residual_resampling", False)
    plain = {"Down": "ResnetDownsampleBlock2D", "Up": "ResnetUpsampleBlock2D"}
    blocks = {
        way: tuple(f"Attn{way}Block2D" if attend else plain[way] if inside else f"{way}Block2D" for attend in attends)
        for way in plain
    }
    groups = model.get("norm_groups") or NORM_GROUPS
    openai = model.get("time_embedding", "sinusoidal") == "cosine_first"
    return {
        "sample_size": image_size,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "block_out_channels": widths,
        "layers_per_block": model["blocks_per_level"],
        "down_block_types": blocks["Down"],
        "up_block_types": blocks["Up"][::-1],
        "downsample_type": "resnet" if inside else "conv",
        "upsample_type": "resnet" if inside else "conv",
        "downsample_padding": int(model.get("symmetric_padding", False)),
        "time_embedding_type": "positional",
        "flip_sin_to_cos": openai,
        "freq_shift": int(not openai),
        "resnet_time_scale_shift": "scale_shift" if model.get("scale_shift", False) else "default",
        "norm_eps": model.get("norm_epsilon", NORM_EPSILON),
        "norm_num_groups": groups,
        # By itself, attention in the middle has a normalization only without a scale and shift.
        "attn_norm_num_groups": groups if model.get("scale_shift", False) else None,
        "attention_head_dim": model.get("head_channels"),
        "act_fn": "silu",
        "center_input_sample": False,
        "mid_block_scale_factor": 1,
        "dropout": model["dropout"],
        "num_class_embeds": None if num_classes is None else num_classes + 1,
    }


def completed(where: str, config: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """A config of diffusers' with all that it leaves to defaults.

    Args:
        where: its place, for messages.
        config: its fields.
        known: what is looked at.

    Raises:
        UserError: when a value does not suit us.
    """
    values = {name: config.get(name, default) for name, (default, _) in known.items()}
    for name, value in values.items():
        allowed = ast.parse(known[name][1], mode="eval").body
        if not fits(value, allowed):
            raise unfit(where, name, value, describe(allowed).removeprefix("one of "))
    return values


def unet_of(where: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The parameters of the `UNet` of ours that is a `UNet2DModel`, and the size of its images: see `unet_2d_config`.

    Args:
        where: the config's place, for messages.
        config: its arguments; those that are missing are diffusers' defaults.

    Raises:
        UserError: when ours has no such part.
    """
    refuse_unknown(where, config, {*UNET, *EMA})
    own = completed(where, config, UNET)
    width, *_ = widths = own["block_out_channels"] or [0]
    size, *rest = own["sample_size"] if isinstance(own["sample_size"], list) else [own["sample_size"]]
    levels, scale_shift = len(widths), own["resnet_time_scale_shift"] == "scale_shift"
    down, up = own["down_block_types"], own["up_block_types"][::-1]
    attends = ["Attn" in block for block in down]
    groups, of_attention = own["norm_num_groups"], own["attn_norm_num_groups"]
    suits = {
        "sample_size": (rest in ([], [size]), "one number, or the same number twice"),
        "block_out_channels": (
            width > 0 and width % math.lcm(4, groups) == 0 and all(each % width == 0 for each in widths),
            f"multiples of the first, which is a multiple of norm_num_groups ({groups}) and of 4",
        ),
        "down_block_types": (len(down) == levels, "one for each of block_out_channels"),
        "up_block_types": (
            ["Attn" in block for block in up] == attends,
            "attention where down_block_types has it, in the opposite order",
        ),
        "time_embedding_dim": (own["time_embedding_dim"] in (None, 4 * width), f"null or {4 * width}"),
        "freq_shift": (
            own["freq_shift"] != own["flip_sin_to_cos"],
            "0 with flip_sin_to_cos true, 1 with flip_sin_to_cos false",
        ),
        "attn_norm_num_groups": (
            of_attention == groups or (of_attention is None and not scale_shift),
            f"{groups}, as norm_num_groups" + ("" if scale_shift else ", or null"),
        ),
    }
    for name, (fine, allowed) in suits.items():
        if not fine:
            raise unfit(where, name, own[name], allowed)
    # The resolution changes inside a residual block or by a convolution: down in all levels but the lowest, up in all
    # but the highest.
    changes = [own["downsample_type"] if "Attn" in block else block for block in down[:-1]]
    changes += [own["upsample_type"] if "Attn" in block else block for block in up[1:]]
    inside = {change.lower().startswith("resnet") for change in changes}
    if len(inside) > 1:
        raise unfit(where, "down_block_types", down, "with up_block_types, all Resnet...sample or none")
    return {
        "channels": width,
        "channel_multipliers": [each // width for each in widths],
        "blocks_per_level": own["layers_per_block"],
        "attention_resolutions": [size // 2**level for level in range(levels) if attends[level]],
        "heads": None,
        "head_channels": own["attention_head_dim"],
        "time_embedding": "cosine_first" if own["flip_sin_to_cos"] else "sinusoidal",
        "scale_shift": scale_shift,
        "residual_resampling": inside == {True},
        "symmetric_padding": own["downsample_padding"] == 1 and inside != {True},
        "norm_epsilon": own["norm_eps"],
        # From this width on, our own choice is the same number at every width.
        "norm_groups": None if groups == NORM_GROUPS and width >= 4 * NORM_GROUPS else groups,
        "dropout": own["dropout"],
        **dict.fromkeys(ABSENT, False),
        "transformer_depth": 0,
        "middle_attention": True,
        "resample_filter": list(BOX),
    }, size


def refuse_unknown(
    where: str, config: Mapping[str, Any], known: Collection[str], idle: Collection[Any] = (None,)
) -> None:
    """Check that a config of diffusers' has no field that is not known here, but for those that do nothing.

    Args:
        where: its place, for messages.
        config: its fields; those that begin with _ are not its class's.
        known: the names that are looked at, or have no effect.
        idle: the values at which another field does nothing.

    Raises:
        UserError: when it has one.
    """
    for name, value in config.items():
        if name not in known and not name.startswith("_") and value not in idle:
            raise unfit(where, name, value, "null, for it is not known here")


def unfit(where: str, name: str, value: Any, allowed: str) -> UserError:
    """The error for a field of a config at the place `where`."""
    return UserError(f"{where}: {name} is {json.dumps(value)}; allowed: {allowed}")


def require_common(model: Model) -> None:
    """Refuse what a `UNet2DModel` of the usual blocks has not."""
    for field in ABSENT:
        if model.get(field, False):
            raise UserError(f"model.{field} is true; allowed: false, for diffusers' UNet2DModel has no such part")
    if not model.get("middle_attention", True):
        raise UserError("model.middle_attention is false; allowed: true in diffusers' UNet2DModel")
    if tuple(model.get("resample_filter", BOX)) != BOX:
        taps = list(model["resample_filter"])
        raise UserError(f"model.resample_filter is {taps}; allowed: {list(BOX)} in diffusers' UNet2DModel")
    if model.get("time_embedding") == "fourier":
        raise UserError(
            "model.time_embedding is fourier; allowed: sinusoidal or cosine_first in diffusers' UNet2DModel"
        )
    if model.get("heads") not in (None, 1):
        raise UserError(f"model.heads is {model['heads']}; allowed: 1 or head_channels in diffusers' UNet2DModel")
    if model["channel_multipliers"][0] != 1:
        multipliers = list(model["channel_multipliers"])
        raise UserError(f"model.channel_multipliers is {multipliers}; allowed: 1 first in diffusers' UNet2DModel")


def require_groups(model: Model) -> None:
    """Refuse widths at which our GroupNorm has fewer groups than at others."""
    if model.get("norm_groups") is None and model["channels"] < 4 * NORM_GROUPS:
        why = "for diffusers' UNet2DModel has as many groups at every width"
        allowed = f"{4 * NORM_GROUPS} or more, or a network trained with model.norm_groups, {why}"
        raise UserError(f"model.channels is {model['channels']}; allowed: {allowed}")
