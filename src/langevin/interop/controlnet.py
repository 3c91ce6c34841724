"""diffusers' `UNet2DConditionModel` that sees no text, and its `ControlNetModel`: our `UNet` and its adapter."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
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
    unfit,
)
from langevin.interop.folder import NETWORK_FILE, DiffusersPart, read_json, read_network
from langevin.interop.renaming import Model, StateDict
from langevin.networks.control import HINT_WIDTH, PREFIX

BASE, CONTROL = "UNet2DConditionModel", "ControlNetModel"
PLACE = "controlnet"
"""Where in its base's folder a `ControlNetModel` is."""
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
OF_CONTROL: Known = {
    **BOTH,
    "conditioning_channels": (3, "Literal[1, 3]"),
    "conditioning_embedding_out_channels": ([16, 32, 96, 256], "list[Annotated[int, Ge(1)]]"),
    "controlnet_conditioning_channel_order": ("rgb", "Literal['rgb', 'bgr']"),
    "global_pool_conditions": (False, "Literal[False]"),
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
STEM = {"hint.0": "controlnet_cond_embedding.conv_in", "hint.2": "controlnet_cond_embedding.conv_out"}
LABEL = "condition.parts.0."
"""How the names of the label's weights begin beside a hint."""
WHOLE = ("weight", "bias")
OUTPUT = ("conv_norm_out.", "conv_out.")
"""What the base has behind its decoder, and its adapter has not."""


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


class ReadControl(NamedTuple):
    """What a `ControlNetModel` makes of the network beside it.

    Attributes:
        overrides: the choices of model and conditions.
        rename: gives the base's weights, together with the adapter's, our names, by our network's parameters.
        notes: what is chosen here, a sentence each.
    """

    overrides: list[str]
    rename: Callable[[StateDict, Model], dict[str, Tensor]]
    notes: tuple[str, ...]


def read_control(
    place: Path, kind: str, base: Mapping[str, Any], overrides: list[str], num_classes: int | None
) -> ReadControl:
    """Read the folder of a `ControlNetModel`.

    Args:
        place: the folder.
        kind: the class of its base.
        base: its base's config.
        overrides: the choices of its base.
        num_classes: of its base; None without classes.

    Raises:
        UserError: when the two do not fit each other, or ours has no such thing.
    """
    if kind != BASE:
        raise UserError(f"{place}: is beside a {kind}; allowed: beside a {BASE}")
    where, config = str(place / NETWORK_FILE), read_json(place / NETWORK_FILE)
    completed(where, config, {"_class_name": (CONTROL, f"Literal[{CONTROL!r}]")})
    channels, weights = check_control(where, config, base), read_network(place)
    kept = [each for each in overrides if not each.startswith(("conditions=", "model.dropout="))]
    conditions = "hint" if num_classes is None else "class_label,hint"
    notes = ["its hints are taken for edges; choose conditions.hint.kind=grey where they are grey levels"]
    if channels > 1:
        notes.append(f"its hints of {channels} channels are taken for grey ones in colour, which are one channel here")
    return ReadControl(
        [*kept, f"conditions=[{conditions}]", "model.dropout=0", "model.control=true"],
        lambda base, model: from_controlled(base, weights, model, num_classes),
        tuple(notes),
    )


def control_part(base: Mapping[str, Any], state_dict: StateDict, model: Model) -> DiffusersPart:
    """The adapter of our `UNet` as a `ControlNetModel`.

    Args:
        base: the arguments of its base, see `textless_config`.
        state_dict: of ours.
        model: its parameters, see `renaming.Model`.

    Raises:
        UserError: see `to_control`.
    """
    stem = {"conditioning_channels": 1, "conditioning_embedding_out_channels": (HINT_WIDTH,)}
    config = {name: value for name, value in base.items() if name in BOTH} | stem
    return DiffusersPart(CONTROL, config, to_control(state_dict, model))


def notes_on_textless(out: Path, parts: Mapping[str, DiffusersPart]) -> list[str]:
    """What to know of an exported `UNet2DConditionModel` and its adapter, if they are among the parts of a folder."""
    base = next((part for part in parts.values() if part.kind == BASE), None)
    if base is None:
        return []
    load = "{}.from_pretrained(" + repr(str(out)) + ", subfolder='{}')"
    notes = [f"it has no pipeline: load {load.format(BASE, 'unet')} and give it encoder_hidden_states=None"]
    if PLACE in parts:
        size = base.config["sample_size"]
        call = f"with controlnet_cond=hints (B, 1, {size}, {size}) in [0, 1]"
        notes.append(f"its adapter is {load.format(CONTROL, PLACE)}, to be called {call}")
    return notes


def check_control(where: str, config: Mapping[str, Any], base: Mapping[str, Any]) -> int:
    """Check that a `ControlNetModel` fits ours beside its base, and count the channels of its hints.

    Args:
        where: its config's place, for messages.
        config: its arguments; those that are missing are diffusers' defaults.
        base: its base's, likewise.

    Raises:
        UserError: when it does not.
    """
    refuse_unknown(where, config, {*OF_CONTROL, *OF_TEXT}, (None, 0))
    own, of_base = completed(where, config, OF_CONTROL), completed(where, base, BOTH)
    for name in BOTH:
        if own[name] != of_base[name]:
            raise unfit(where, name, own[name], f"{of_base[name]}, as its base has")
    stem = own["conditioning_embedding_out_channels"]
    if stem != [HINT_WIDTH]:
        allowed = f"[{HINT_WIDTH}], which keeps the size of the hints; further ones halve it, for latents"
        raise unfit(where, "conditioning_embedding_out_channels", stem, allowed)
    channels: int = own["conditioning_channels"]
    return channels


def from_controlled(
    base: StateDict, control: StateDict, model: Model, num_classes: int | None = None
) -> dict[str, Tensor]:
    """Give the weights of a `UNet2DConditionModel` and its `ControlNetModel` the names they have in our `UNet`.

    Hints of three channels are taken for grey ones in colour, so that one channel has the sum of their weights.

    Args:
        base: of the former.
        control: of the latter.
        model: the parameters of ours, see `renaming.Model`.
        num_classes: see `from_diffusers`.

    Raises:
        UserError: when a weight is unknown or missing, or the two have different tables of classes, of which ours has
            one.
    """
    rest = dict(control)
    zeros = sorted(name for name in rest if name.startswith("controlnet_down_blocks.") and name.endswith(".weight"))
    adapter = {}
    for ours, theirs in _added(len(zeros)).items():
        for kind in WHOLE:
            if f"{theirs}.{kind}" not in rest:
                raise UserError(f"weights: '{theirs}.{kind}' is missing; allowed: all the weights of a {CONTROL}")
            adapter[f"{ours}.{kind}"] = rest.pop(f"{theirs}.{kind}")
    stem = f"{next(iter(STEM))}.weight"
    adapter[stem] = adapter[stem].sum(1, keepdim=True)
    table = "class_embedding.weight"
    if table in rest and table in base and not torch.equal(rest[table], base[table]):
        text = "are not those of the base; allowed: the same, since the adapter here has no table of its own"
        raise UserError(f"weights: '{table}' of the {CONTROL} {text}")
    whole = rest | {name: base[name] for name in base if name.startswith((*OUTPUT, table))}
    copied = from_diffusers(whole, _of_pixels(model), num_classes)
    adapter |= {
        name: tensor for name, tensor in copied.items() if not name.startswith(("norm.", "last.", "condition."))
    }
    frozen = from_diffusers(base, _of_pixels(model), num_classes)
    return {
        **{name.replace("condition.", LABEL): tensor for name, tensor in frozen.items()},
        **{PREFIX + name: tensor for name, tensor in adapter.items()},
    }


def from_textless(state_dict: StateDict, model: Model, num_classes: int | None = None) -> dict[str, Tensor]:
    """Give the weights of a `UNet2DConditionModel` the names they have in our `UNet`: see `from_diffusers`."""
    return from_diffusers(state_dict, _of_pixels(model), num_classes)


def to_textless(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of our `UNet`, without its adapter's, the names they have in a `UNet2DConditionModel`."""
    own = {name.replace(LABEL, "condition."): each for name, each in state_dict.items() if not name.startswith(PREFIX)}
    return to_diffusers(own, _of_pixels(model))


def to_control(state_dict: StateDict, model: Model) -> dict[str, Tensor]:
    """Give the weights of our `UNet`'s adapter the names they have in a `ControlNetModel`.

    Raises:
        UserError: when the images that it sees are not hints alone.
    """
    adapter = {name.removeprefix(PREFIX): each for name, each in state_dict.items() if name.startswith(PREFIX)}
    first, *_ = STEM
    if (images := adapter[f"{first}.weight"].shape[1]) != 1:
        allowed = "1, with conditions=[hint], in diffusers"
        raise UserError(f"the adapter sees images of {images} channels; allowed: {allowed}")
    added = _added(sum(name.startswith("zeros.") for name in adapter) // 2 - 1)
    result = {f"{theirs}.{kind}": adapter.pop(f"{ours}.{kind}") for ours, theirs in added.items() for kind in WHOLE}
    rest = {
        name: each
        for name, each in state_dict.items()
        if name.startswith((LABEL, "norm.", "last.")) and not name.startswith(PREFIX)
    }
    copied = to_textless(rest | adapter, model)
    return result | {name: each for name, each in copied.items() if not name.startswith(OUTPUT)}


def _of_pixels(model: Model) -> Model:
    """The same but for what a `UNet2DModel` has not."""
    return {**model, "control": False, "middle_attention": True}


def _added(steps: int) -> dict[str, str]:
    """The layers that the adapter has and its base has not: ours, theirs. `steps`: of the encoder, and its stem."""
    zeros = {f"zeros.{index}": f"controlnet_down_blocks.{index}" for index in range(steps)}
    return {**STEM, **zeros, f"zeros.{steps}": "controlnet_mid_block"}
