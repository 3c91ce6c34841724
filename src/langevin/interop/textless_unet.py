"""diffusers' `UNet2DConditionModel` that sees no text: our `UNet` without attention in its middle, both ways."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from langevin.errors import UserError
from langevin.interop.diffusers import (
    EMA,
    UNET,
    Known,
    completed,
    from_diffusers,
    refuse_unknown,
    to_diffusers,
    unet_2d_config,
    unet_of,
)
from langevin.interop.renaming import Model, StateDict
from langevin.networks.control import PREFIX

BASE = "UNet2DConditionModel"
TEXT_BLOCKS = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"], ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
BOTH: Known = {
    "down_block_types": (TEXT_BLOCKS[0], UNET["down_block_types"][1]),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "Literal['UNetMidBlock2D']"),
    **{
        name: UNET[name]
        for name in (
            "freq_shift",
            "flip_sin_to_cos",
            "mid_block_scale_factor",
            "layers_per_block",
            "downsample_padding",
            "act_fn",
            "norm_num_groups",
            "norm_eps",
            "resnet_time_scale_shift",
            "class_embed_type",
            "num_class_embeds",
        )
    },
    "in_channels": (4, UNET["in_channels"][1]),
    "block_out_channels": ([320, 640, 1280, 1280], UNET["block_out_channels"][1]),
    "attention_head_dim": (8, "Annotated[int, Ge(1)]"),
}
"""What the configs of the two have in common."""
OF_BASE: Known = {
    **BOTH,
    "up_block_types": (TEXT_BLOCKS[1], UNET["up_block_types"][1]),
    "out_channels": (4, UNET["out_channels"][1]),
    **{
        name: UNET[name]
        for name in ("sample_size", "center_input_sample", "time_embedding_type", "time_embedding_dim", "dropout")
    },
    "resnet_skip_time_act": (False, "Literal[False]"),
    "resnet_out_scale_factor": (1.0, "Literal[1, 1.0]"),
    "conv_in_kernel": (3, "Literal[3]"),
    "conv_out_kernel": (3, "Literal[3]"),
    "class_embeddings_concat": (False, "Literal[False]"),
}
OF_TEXT = {
    "only_cross_attention",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "reverse_transformer_layers_per_block",
    "dual_cross_attention",
    "use_linear_projection",
    "upcast_attention",
    "attention_type",
    "mid_block_only_cross_attention",
    "cross_attention_norm",
    "addition_embed_type_num_heads",
}
"""Fields that do nothing where no block attends to text."""
LABEL = "condition.parts.0."
"""How the names of the label's weights begin beside a hint."""


def is_textless(model: Model) -> bool:
    """Whether our `UNet` is to become a `UNet2DConditionModel`: its middle, or its adapter, fits no `UNet2DModel`."""
    return bool(model.get("control", False)) or not model.get("middle_attention", True)


def textless_of(where: str, config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The parameters of the `UNet` of ours that is a `UNet2DConditionModel`, and the size of its images.

    Args:
        where: the config's place, for messages.
        config: its arguments; those that are missing are diffusers' defaults.

    Raises:
        UserError: when ours has no such part, as those that attend to text.
    """
    refuse_unknown(where, config, {*OF_BASE, *OF_TEXT, *EMA})
    own = completed(where, config, OF_BASE)
    shared = {name: value for name, value in own.items() if name in UNET and name != "mid_block_type"}
    fixed = {"attn_norm_num_groups": own["norm_num_groups"], "downsample_type": "conv", "upsample_type": "conv"}
    model, size = unet_of(where, shared | fixed)
    head_channels = model["head_channels"] if model["attention_resolutions"] else None
    return model | {"middle_attention": False, "head_channels": head_channels}, size


def textless_config(
    model: Model, in_channels: int, out_channels: int, image_size: int, num_classes: int | None = None
) -> dict[str, Any]:
    """The arguments of the `UNet2DConditionModel` that our `UNet` is: see `unet_2d_config`.

    Raises:
        UserError: when ours has parts that theirs has not.
    """
    if model.get("middle_attention", True):
        text = f"for diffusers' {BASE} without text ends the lowest resolution in one residual block"
        raise UserError(f"model.middle_attention is true; allowed: false, {text}")
    config = unet_2d_config(_of_pixels(model), in_channels, out_channels, image_size, num_classes)
    sides = [image_size // 2**level for level in range(len(config["block_out_channels"]))]
    widths = {
        width
        for width, side in zip(config["block_out_channels"], sides, strict=True)
        if side in model["attention_resolutions"]
    }
    if widths and model.get("residual_resampling", False):
        text = f"allowed: false where there is attention, in diffusers' {BASE}"
        raise UserError(f"model.residual_resampling is true; {text}")
    if len(widths) > 1 and model.get("head_channels") is None:
        text = (
            f"with attention at the widths {sorted(widths)}; allowed: a number, for diffusers' {BASE} has one for all"
        )
        raise UserError(f"model.head_channels is null {text}")
    kept = {name: value for name, value in config.items() if name in OF_BASE}
    head_channels = model.get("head_channels") or next(iter(widths), OF_BASE["attention_head_dim"][0])
    return kept | {"mid_block_type": "UNetMidBlock2D", "attention_head_dim": head_channels}


def from_textless(state_dict: StateDict, model: Model, num_classes: int | None = None) -> dict[str, Tensor]:
    """Give the weights of a `UNet2DConditionModel` the names they have in our `UNet`: see `from_diffusers`."""
    return from_diffusers(state_dict, _of_pixels(model), num_classes)


def to_textless(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of our `UNet`, without its adapter's, the names they have in a `UNet2DConditionModel`."""
    own = {name.replace(LABEL, "condition."): each for name, each in state_dict.items() if not name.startswith(PREFIX)}
    return to_diffusers(own, _of_pixels(model))


def _of_pixels(model: Model) -> Model:
    """The same but for what a `UNet2DModel` has not."""
    return {**model, "control": False, "middle_attention": True}
