"""Weights and configs of diffusers' `UNet2DConditionModel` that attends to text, both ways.

Two families of its blocks are ours: those of Stable Diffusion (`CrossAttnDownBlock2D`), with spatial transformers, and
those of GLIDE (`SimpleCrossAttnDownBlock2D`), whose attention joins the keys and values of pixels and tokens.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from langevin.errors import UserError
from langevin.interop.diffusers import (
    EMA,
    UNET,
    Known,
    completed,
    refuse_unknown,
    require_common,
    require_groups,
    unet_2d_config,
    unet_of,
    unfit,
)
from langevin.interop.renaming import Model, Renaming, StateDict
from langevin.interop.unet_layers import ATTENTION, Attention, to_ours, to_theirs
from langevin.networks.blocks.block import NORM_EPSILON
from langevin.networks.control import PREFIX

TEXT_UNET = "UNet2DConditionModel"
CONV_PROJECTIONS = (".proj_in.weight", ".proj_out.weight")
"""Linear layers that are convolutions of one pixel in Stable Diffusion 1."""
BESIDE = ("condition.", PREFIX)
"""How the names of our condition's weights, and an adapter's, begin, which are no part of theirs."""
SHARED = (
    *("sample_size", "in_channels", "out_channels", "center_input_sample", "time_embedding_type", "time_embedding_dim"),
    *("freq_shift", "flip_sin_to_cos", "block_out_channels", "mid_block_scale_factor", "downsample_padding"),
    *("dropout", "act_fn", "norm_num_groups", "norm_eps", "resnet_time_scale_shift"),
)
"""The fields that a `UNet2DModel` has too, with the same meaning."""
EACH = "Annotated[int, Ge(1)] | list[Annotated[int, Ge(1)]]"
DOWN = "'CrossAttnDownBlock2D', 'SimpleCrossAttnDownBlock2D', 'DownBlock2D', 'ResnetDownsampleBlock2D'"
UP = "'CrossAttnUpBlock2D', 'SimpleCrossAttnUpBlock2D', 'UpBlock2D', 'ResnetUpsampleBlock2D'"
FIELDS: Known = {
    **{name: UNET[name] for name in SHARED},
    "in_channels": (4, UNET["in_channels"][1]),
    "out_channels": (4, UNET["out_channels"][1]),
    "block_out_channels": ([320, 640, 1280, 1280], UNET["block_out_channels"][1]),
    "down_block_types": ([*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"], f"list[Literal[{DOWN}]]"),
    "mid_block_type": (
        "UNetMidBlock2DCrossAttn",
        "Literal['UNetMidBlock2DCrossAttn', 'UNetMidBlock2DSimpleCrossAttn']",
    ),
    "up_block_types": (["UpBlock2D", *["CrossAttnUpBlock2D"] * 3], f"list[Literal[{UP}]]"),
    "layers_per_block": (2, EACH),
    "attention_head_dim": (8, EACH),
    "cross_attention_dim": (1280, EACH),
    "transformer_layers_per_block": (1, EACH),
    "only_cross_attention": (False, "Literal[False]"),
    "mid_block_only_cross_attention": (None, "Literal[False] | None"),
    "use_linear_projection": (False, "bool"),
    "upcast_attention": (False, "bool"),
    "dual_cross_attention": (False, "Literal[False]"),
    "attention_type": ("default", "Literal['default']"),
    "resnet_skip_time_act": (False, "Literal[False]"),
    "resnet_out_scale_factor": (1.0, "Literal[1, 1.0]"),
    "conv_in_kernel": (3, "Literal[3]"),
    "conv_out_kernel": (3, "Literal[3]"),
    "class_embeddings_concat": (False, "Literal[False]"),
    "addition_embed_type_num_heads": (64, "int"),
}
"""The fields of its config that are looked at."""


class Family(NamedTuple):
    """What diffusers calls the blocks of a family.

    Attributes:
        block: how the names of the blocks with attention begin.
        middle: the block of the middle.
        inside: whether the resolution changes inside residual blocks.
    """

    block: str
    middle: str
    inside: bool


JOINED_EPSILON = 1e-5
"""Of the normalization before the attention of the latter family."""
SPATIAL = Family("CrossAttn", "UNetMidBlock2DCrossAttn", inside=False)
JOINED = Family("SimpleCrossAttn", "UNetMidBlock2DSimpleCrossAttn", inside=True)


class ReadTextUNet(NamedTuple):
    """A `UNet2DConditionModel` in our terms.

    Attributes:
        model: the parameters of our `UNet`.
        image_size: the side of what it diffuses.
        token_channels: the size of the tokens that it attends to.
    """

    model: dict[str, Any]
    image_size: int
    token_channels: int


def attends_to_text(config: Mapping[str, Any]) -> bool:
    """Whether a network's config is that of a `UNet2DConditionModel` with blocks that attend to text."""
    blocks = [config.get(name, FIELDS[name][0]) for name in ("down_block_types", "mid_block_type")]
    return config.get("_class_name") == TEXT_UNET and "CrossAttn" in str(blocks)


def text_unet_of(where: str, config: Mapping[str, Any]) -> ReadTextUNet:
    """The `UNet` of ours that is a `UNet2DConditionModel`: see `text_unet_config`.

    Args:
        where: the config's place, for messages.
        config: its arguments; those that are missing are diffusers' defaults.

    Raises:
        UserError: when ours has no such part.
    """
    refuse_unknown(where, config, {*FIELDS, *EMA})
    own = completed(where, config, FIELDS)
    family = next(each for each in (SPATIAL, JOINED) if each.middle == own["mid_block_type"])
    blocks = {}
    for name in ("down_block_types", "up_block_types"):
        if any("Attn" in block and not block.startswith(family.block) for block in own[name]):
            raise unfit(where, name, own[name], f"{family.block} blocks, as mid_block_type has it")
        blocks[name] = [block.replace(family.block, "Attn") for block in own[name]]
    single = {name: _single(where, name, own) for name in ("layers_per_block", "cross_attention_dim")}
    sampling = "resnet" if family.inside else "conv"
    plain = {
        **{name: own[name] for name in SHARED},
        **blocks,
        "layers_per_block": single["layers_per_block"],
        "downsample_type": sampling,
        "upsample_type": sampling,
        "attn_norm_num_groups": own["norm_num_groups"],
    }
    model, size = unet_of(where, plain)
    if family is JOINED and own["norm_eps"] != JOINED_EPSILON:
        raise unfit(where, "norm_eps", own["norm_eps"], f"{JOINED_EPSILON}, which its attention has in any case")
    depth = _single(where, "transformer_layers_per_block", own) if family is SPATIAL else 0
    heads = _heads(where, own, family)
    return ReadTextUNet(
        {**model, **heads, "cross_attention": True, "transformer_depth": depth}, size, single["cross_attention_dim"]
    )


def text_unet_config(
    model: Model, in_channels: int, out_channels: int, image_size: int, token_channels: int
) -> dict[str, Any]:
    """The arguments of the `UNet2DConditionModel` that `to_text_unet` fills.

    A transformer's first and last layer are convolutions of one pixel with a fixed number of heads, as in Stable
    Diffusion 1, and linear with heads of a fixed width, as in Stable Diffusion 2; the function is the same.

    Args:
        model: the parameters of our `UNet`, see `renaming.Model`.
        in_channels: of what it diffuses.
        out_channels: of the output.
        image_size: height and width of what it diffuses.
        token_channels: the size of the tokens.

    Raises:
        UserError: when ours has parts that theirs has not.
    """
    _require(model)
    family = _family(model)
    if model.get("residual_resampling", False) != family.inside:
        allowed = f"{str(family.inside).lower()}, for so are the {family.block} blocks of diffusers' {TEXT_UNET}"
        raise UserError(f"model.residual_resampling is {str(not family.inside).lower()}; allowed: {allowed}")
    if family is JOINED and model.get("norm_epsilon", NORM_EPSILON) != JOINED_EPSILON:
        allowed = f"{JOINED_EPSILON}, which the attention of diffusers' {TEXT_UNET} has in any case"
        raise UserError(f"model.norm_epsilon is {model.get('norm_epsilon', NORM_EPSILON)}; allowed: {allowed}")
    plain = unet_2d_config({**model, **PLAIN}, in_channels, out_channels, image_size)
    widths, heads, head_channels = plain["block_out_channels"], model.get("heads"), model.get("head_channels")
    if family is SPATIAL:
        split = [width // head_channels for width in widths] if head_channels else heads or 1
    else:
        split = head_channels or [width // (heads or 1) for width in widths]
    return {
        **{name: plain[name] for name in SHARED if name in plain},
        "layers_per_block": plain["layers_per_block"],
        "down_block_types": [block.replace("Attn", family.block) for block in plain["down_block_types"]],
        "mid_block_type": family.middle,
        "up_block_types": [block.replace("Attn", family.block) for block in plain["up_block_types"]],
        "attention_head_dim": split,
        "cross_attention_dim": token_channels,
        "transformer_layers_per_block": max(model.get("transformer_depth", 0), 1),
        "use_linear_projection": _is_linear(model),
    }


def from_text_unet(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of a `UNet2DConditionModel` the names they have in our `UNet`, but for its condition's.

    Args:
        state_dict: of theirs.
        model: the parameters of ours, see `renaming.Model`.

    Raises:
        UserError: when a weight is unknown, or one of the outer layers missing, or ours has parts that theirs has not.
    """
    _require(model)
    names = Renaming(state_dict, f"diffusers' {TEXT_UNET}")
    to_ours(names, model, _attention(model))
    return names.finished()


def to_text_unet(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of our `UNet` the names they have in a `UNet2DConditionModel`: the inverse of `from_text_unet`.

    Args:
        state_dict: of ours; what belongs to its condition, and to an adapter, is left out.
        model: its parameters, see `renaming.Model`.

    Raises:
        UserError: when a weight is unknown, or one of the outer layers missing, or ours has parts that theirs has not.
    """
    _require(model)
    own = {name: tensor for name, tensor in state_dict.items() if not name.startswith(BESIDE)}
    names = Renaming(own, f"a UNet that diffusers' {TEXT_UNET} can hold")
    to_theirs(names, model, _attention(model))
    is_conv = _family(model) is SPATIAL and not _is_linear(model)
    return {
        name: tensor[:, :, None, None] if is_conv and name.endswith(CONV_PROJECTIONS) else tensor
        for name, tensor in names.finished().items()
    }


PLAIN = {"cross_attention": False, "transformer_depth": 0, "heads": None, "control": False}
"""The parameters of which a `UNet2DModel` has none; an adapter is a network of its own, see `controlnet`."""


def _require(model: Model) -> None:
    """Refuse what a `UNet2DConditionModel` of these families has not."""
    if not model.get("cross_attention", False):
        raise UserError(f"model.cross_attention is false; allowed: true in diffusers' {TEXT_UNET} of text")
    require_common({**model, **PLAIN})
    require_groups(model)


def _family(model: Model) -> Family:
    return SPATIAL if model.get("transformer_depth", 0) > 0 else JOINED


def _is_linear(model: Model) -> bool:
    return model.get("head_channels") is not None


def _attention(model: Model) -> Attention:
    """The layers of each attention."""
    if _family(model) is JOINED:
        return {**ATTENTION, "kv": ["add_k_proj", "add_v_proj"]}
    layers: dict[str, list[str]] = {"first": ["proj_in"], "norm": ["norm"], "project": ["proj_out"]}
    for index in range(model["transformer_depth"]):
        theirs, ours = f"transformer_blocks.{index}", f"blocks.{index}"
        for norm in ("norm1", "norm2", "norm3"):
            layers[f"{ours}.{norm}"] = [f"{theirs}.{norm}"]
        for attention, own in (("attn1", "own"), ("attn2", "cross")):
            layers[f"{ours}.{own}.query"] = [f"{theirs}.{attention}.to_q"]
            layers[f"{ours}.{own}.kv"] = [f"{theirs}.{attention}.to_k", f"{theirs}.{attention}.to_v"]
            layers[f"{ours}.{own}.project"] = [f"{theirs}.{attention}.to_out.0"]
        layers[f"{ours}.gated"] = [f"{theirs}.ff.net.0.proj"]
        layers[f"{ours}.last"] = [f"{theirs}.ff.net.2"]
    return layers


def _single(where: str, name: str, own: Mapping[str, Any]) -> int:
    """The value of a field that may name one for each level, all the same."""
    values = own[name] if isinstance(own[name], list) else [own[name]]
    if len(set(values)) != 1:
        raise unfit(where, name, own[name], "one number, or the same for each level")
    value: int = values[0]
    return value


def _heads(where: str, own: Mapping[str, Any], family: Family) -> dict[str, int | None]:
    """Our `heads` and `head_channels`; Stable Diffusion's blocks have the former in a field named after the latter."""
    values, widths = own["attention_head_dim"], own["block_out_channels"]
    if family is SPATIAL and isinstance(values, list) and len(set(values)) > 1:
        sizes = {width / number for width, number in zip(widths, values, strict=False)}
        if len(values) != len(widths) or len(sizes) > 1 or widths[0] % values[0]:
            raise unfit(where, "attention_head_dim", values, "one number, or block_out_channels divided by one number")
        return {"heads": None, "head_channels": widths[0] // values[0]}
    number = _single(where, "attention_head_dim", own)
    return {"heads": number, "head_channels": None} if family is SPATIAL else {"heads": None, "head_channels": number}
