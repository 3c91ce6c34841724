"""diffusers' `ControlNetModel` beside its base, a `UNet2DConditionModel`: our `UNet` and its adapter."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.diffusers import Known, completed, refuse_unknown, unfit
from langevin.interop.folder import NETWORK_FILE, DiffusersPart, read_json, read_network
from langevin.interop.renaming import Model, StateDict, settings
from langevin.interop.text_unet import FIELDS, SPATIAL, attends_to_text, from_text_unet, to_text_unet
from langevin.interop.textless_unet import BASE, BOTH, LABEL, OF_TEXT, from_textless, to_textless
from langevin.networks.control import HINT_WIDTHS, PREFIX

CONTROL = "ControlNetModel"
PLACE = "controlnet"
"""Where in its base's folder a `ControlNetModel` is."""
FURTHER = f"{PLACE}_1"
"""Where the second one of several is."""


class Base(NamedTuple):
    """What a `ControlNetModel` has in common with its base.

    Attributes:
        fields: of the configs of both.
        idle: fields of its own config that do nothing.
        from_theirs: gives weights of the base our names, called with these, our parameters and the number of classes.
        to_theirs: the inverse.
    """

    fields: Known
    idle: Collection[str]
    from_theirs: Callable[[StateDict, Model, int | None], dict[str, Tensor]]
    to_theirs: Callable[[StateDict, Model], dict[str, Tensor]]


OF_BOTH = (
    *("in_channels", "flip_sin_to_cos", "freq_shift", "block_out_channels", "mid_block_scale_factor"),
    *("downsample_padding", "act_fn", "norm_num_groups", "norm_eps", "resnet_time_scale_shift", "down_block_types"),
    *("layers_per_block", "attention_head_dim", "cross_attention_dim", "transformer_layers_per_block"),
    *("only_cross_attention", "use_linear_projection"),
)
TEXTLESS = Base(BOTH, OF_TEXT, from_textless, to_textless)
WITH_TEXT = Base(
    {
        **{name: FIELDS[name] for name in OF_BOTH},
        "mid_block_type": (SPATIAL.middle, f"Literal[{SPATIAL.middle!r}]"),
    },
    ("upcast_attention", "addition_embed_type_num_heads"),
    lambda weights, model, _: from_text_unet(weights, model),
    to_text_unet,
)
OF_CONTROL: Known = {
    "conditioning_channels": (3, "Literal[1, 3]"),
    "conditioning_embedding_out_channels": ([16, 32, 96, 256], "list[Annotated[int, Ge(1)]]"),
    "controlnet_conditioning_channel_order": ("rgb", "Literal['rgb', 'bgr']"),
    "global_pool_conditions": (False, "Literal[False]"),
}
"""The other fields of its config."""
STEM = "controlnet_cond_embedding"
OUTPUT = ("conv_norm_out.", "conv_out.")
"""What the base has behind its decoder, and its adapter has not."""


class ReadControl(NamedTuple):
    """What a `ControlNetModel` makes of the network beside it.

    Attributes:
        overrides: the choices of model and conditions.
        rename: gives the base's weights, together with the adapter's, our names, by our network's parameters.
        notes: what is chosen here, a sentence each.
        factor: how many times the side of what is diffused its hints have.
    """

    overrides: list[str]
    rename: Callable[[StateDict, Model], dict[str, Tensor]]
    notes: tuple[str, ...]
    factor: int


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
    if (further := place.with_name(FURTHER)).is_dir():
        raise UserError(f"{further}: is a second {CONTROL}; allowed: one, in {PLACE}/")
    where, config = str(place / NETWORK_FILE), read_json(place / NETWORK_FILE)
    completed(where, config, {"_class_name": (CONTROL, f"Literal[{CONTROL!r}]")})
    own, weights = check_control(where, config, base), read_network(place)
    first = "text" if attends_to_text(base) else None if num_classes is None else "class_label"
    conditions = ",".join(name for name in (first, "hint") if name is not None)
    channels, stem = own["conditioning_channels"], own["conditioning_embedding_out_channels"]
    kept = [each for each in overrides if not each.startswith(("conditions=", "model.dropout="))]
    chosen = [f"conditions=[{conditions}]", *settings("conditions.hint", {"channels": channels})]
    chosen += settings("model", {"dropout": 0, "control": True, "control_channels": stem})
    swapped = own["controlnet_conditioning_channel_order"] == "bgr"
    return ReadControl(
        [*kept, *chosen],
        lambda base_weights, model: from_controlled(
            base_weights, weights, model, num_classes, base=base_of(base), swapped=swapped
        ),
        ("its hints are taken for edges where they are computed; choose conditions.hint.kind=grey for grey levels",),
        2 ** (len(stem) - 1),
    )


def require_factor(place: Path, control: ReadControl, factor: int) -> None:
    """Check that the stem of a `ControlNetModel` brings hints of the size of images down to what is diffused.

    Args:
        place: its folder.
        control: what was read there.
        factor: how many times the side of what is diffused images have.

    Raises:
        UserError: when it does not.
    """
    if control.factor != factor:
        field, file = "conditioning_embedding_out_channels", place / NETWORK_FILE
        why = f"each after the first halves the hints, and images have {factor} times the side of what is diffused"
        stem = read_json(file).get(field, OF_CONTROL[field][0])
        raise unfit(str(file), field, stem, f"a list of {factor.bit_length()}, since {why}")


def base_of(config: Mapping[str, Any]) -> Base:
    """What a base of this config has in common with its adapter."""
    return WITH_TEXT if attends_to_text({"_class_name": BASE, **config}) else TEXTLESS


def control_part(base: Mapping[str, Any], state_dict: StateDict, model: Model, hints: int) -> DiffusersPart:
    """The adapter of our `UNet` as a `ControlNetModel`.

    Args:
        base: the arguments of its base, see `textless_config` and `text_unet_config`.
        state_dict: of ours.
        model: its parameters, see `renaming.Model`.
        hints: the channels of its hints.

    Raises:
        UserError: when the images that it sees are not hints alone.
    """
    kind, weights = base_of(base), to_control(state_dict, model, base_of(base))
    if (images := weights[f"{STEM}.conv_in.weight"].shape[1]) != hints:
        text = f"the adapter sees images of {images} channels, of which {hints} are a hint's"
        raise UserError(f"{text}; allowed: a hint alone, with conditions=[hint], in diffusers")
    stem = {
        "conditioning_channels": hints,
        "conditioning_embedding_out_channels": list(_stem(model)),
    }
    return DiffusersPart(CONTROL, {name: each for name, each in base.items() if name in kind.fields} | stem, weights)


def notes_on_parts(out: Path, parts: Mapping[str, DiffusersPart]) -> list[str]:
    """What to know of an exported `UNet2DConditionModel` and its adapter, if they are among parts without pipeline."""
    base = next((part for part in parts.values() if part.kind == BASE), None)
    if base is None:
        return []
    load = "{}.from_pretrained(" + repr(str(out)) + ", subfolder='{}')"
    notes = [f"it has no pipeline: load {load.format(BASE, 'unet')} and give it encoder_hidden_states=None"]
    if PLACE in parts:
        channels, size = _of_hints(parts[PLACE], base.config["sample_size"])
        call = f"with controlnet_cond=hints (B, {channels}, {size}, {size}) in [0, 1]"
        notes.append(f"its adapter is {load.format(CONTROL, PLACE)}, to be called {call}")
    return notes


def notes_on_hints(parts: Mapping[str, DiffusersPart]) -> list[str]:
    """What to know of the hints of an exported pipeline, if it has an adapter."""
    if PLACE not in parts or parts[PLACE].config["conditioning_channels"] != 1:
        return []
    _, size = _of_hints(parts[PLACE], parts["unet"].config["sample_size"])
    return [f"its hints have one channel: give it image=hints, a tensor (B, 1, {size}, {size}) in [0, 1], and no files"]


def _of_hints(part: DiffusersPart, size: int) -> tuple[int, int]:
    """The channels and the side of the hints of an adapter beside a base of this size."""
    stem = part.config["conditioning_embedding_out_channels"]
    return part.config["conditioning_channels"], size * 2 ** (len(stem) - 1)


def check_control(where: str, config: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a `ControlNetModel` fits ours beside its base, and complete its config.

    Args:
        where: its config's place, for messages.
        config: its arguments; those that are missing are diffusers' defaults.
        base: its base's, likewise.

    Raises:
        UserError: when it does not.
    """
    fields, idle, *_ = base_of(base)
    refuse_unknown(where, config, {*fields, *OF_CONTROL, *idle}, (None, 0))
    own, of_base = completed(where, config, {**fields, **OF_CONTROL}), completed(f"{where}: its base", base, fields)
    for name in fields:
        if _each(own[name]) != _each(of_base[name]):
            raise unfit(where, name, own[name], f"{of_base[name]}, as its base has")
    if not own["conditioning_embedding_out_channels"]:
        raise unfit(where, "conditioning_embedding_out_channels", [], "one width or more")
    return own


def _each(value: Any) -> Any:
    """A field that may name one value for each level: that value, where they are all the same."""
    return value[0] if isinstance(value, list) and value and all(each == value[0] for each in value) else value


def from_controlled(
    base_weights: StateDict,
    control: StateDict,
    model: Model,
    num_classes: int | None = None,
    *,
    base: Base = TEXTLESS,
    swapped: bool = False,
) -> dict[str, Tensor]:
    """Give the weights of a `UNet2DConditionModel` and its `ControlNetModel` the names they have in our `UNet`.

    Args:
        base_weights: of the former.
        control: of the latter.
        model: the parameters of ours, see `renaming.Model`.
        num_classes: see `from_diffusers`.
        base: what the two have in common.
        swapped: whether the latter takes the channels of hints in the opposite order.

    Raises:
        UserError: when a weight is unknown or missing, or the two have different tables of classes, of which ours has
            one.
    """
    rest = dict(control)
    zeros = sorted(name for name in rest if name.startswith("controlnet_down_blocks.") and name.endswith(".weight"))
    adapter = {}
    for ours, theirs in _added(len(zeros), len(_stem(model))).items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" not in rest:
                raise UserError(f"weights: '{theirs}.{kind}' is missing; allowed: all the weights of a {CONTROL}")
            adapter[f"{ours}.{kind}"] = rest.pop(f"{theirs}.{kind}")
    if swapped:
        adapter["hint.0.weight"] = adapter["hint.0.weight"].flip(1)
    table = "class_embedding.weight"
    if table in rest and table in base_weights and not torch.equal(rest[table], base_weights[table]):
        text = "are not those of the base; allowed: the same, since the adapter here has no table of its own"
        raise UserError(f"weights: '{table}' of the {CONTROL} {text}")
    whole = rest | {name: each for name, each in base_weights.items() if name.startswith((*OUTPUT, table))}
    copied = base.from_theirs(whole, model, num_classes)
    adapter |= {
        name: tensor for name, tensor in copied.items() if not name.startswith(("norm.", "last.", "condition."))
    }
    frozen = base.from_theirs(base_weights, model, num_classes)
    return {
        **{name.replace("condition.", LABEL): tensor for name, tensor in frozen.items()},
        **{PREFIX + name: tensor for name, tensor in adapter.items()},
    }


def to_control(state_dict: StateDict, model: Model, base: Base = TEXTLESS) -> dict[str, Tensor]:
    """Give the weights of our `UNet`'s adapter the names they have in a `ControlNetModel`.

    Args:
        state_dict: of ours.
        model: its parameters, see `renaming.Model`.
        base: what the adapter and its base have in common.
    """
    adapter = {name.removeprefix(PREFIX): each for name, each in state_dict.items() if name.startswith(PREFIX)}
    steps = sum(name.startswith("zeros.") for name in adapter) // 2 - 1
    added = _added(steps, len(_stem(model)))
    result = {
        f"{theirs}.{kind}": adapter.pop(f"{ours}.{kind}")
        for ours, theirs in added.items()
        for kind in ("weight", "bias")
    }
    rest = {
        name: each
        for name, each in state_dict.items()
        if name.startswith((LABEL, "norm.", "last.")) and not name.startswith(PREFIX)
    }
    copied = base.to_theirs(rest | adapter, model)
    return result | {name: each for name, each in copied.items() if not name.startswith(OUTPUT)}


def _stem(model: Model) -> Sequence[int]:
    """The widths of the stem of the hints; earlier runs do not name them."""
    return model.get("control_channels", HINT_WIDTHS)


def _added(steps: int, widths: int) -> dict[str, str]:
    """The layers that the adapter has and its base has not: ours, theirs.

    Args:
        steps: of the encoder, and its stem.
        widths: of the stem of the hints.
    """
    between = [f"{STEM}.blocks.{index}" for index in range(2 * (widths - 1))]
    stem = [f"{STEM}.conv_in", *between, f"{STEM}.conv_out"]
    hint = {f"hint.{2 * index}": theirs for index, theirs in enumerate(stem)}
    zeros = {f"zeros.{index}": f"controlnet_down_blocks.{index}" for index in range(steps)}
    return {**hint, **zeros, f"zeros.{steps}": "controlnet_mid_block"}
