"""OpenAI's networks, improved-diffusion's and guided-diffusion's `UNetModel`: weights, and models with their flags."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.imported import Imported
from langevin.interop.openai_flags import parse_flags
from langevin.interop.renaming import Model, Renaming, StateDict, class_overrides, linear, settings
from langevin.networks.blocks.attention import number_of_heads
from langevin.networks.blocks.block import NORM_GROUPS

ORIGIN = "OpenAI's UNetModel"
OUTER = {
    "time_embed.0": "time.linear1",
    "time_embed.2": "time.linear2",
    "input_blocks.0.0": "first",
    "out.0": "norm",
}
"""The layers around the blocks, in `UNetModel` and in `EncoderUNetModel`."""
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
TABLE = "condition.table.weight"
BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)(?:\.(\d+))?\.(.+)\.(?:weight|bias)")

MULTIPLIERS = {32: [1, 2, 2, 2], 64: [1, 2, 3, 4], 128: [1, 1, 2, 3, 4], 256: [1, 1, 2, 2, 4, 4]}
"""Of the widths of the levels, by the size of the images; ADM's for 512 begin with a half."""
LARGE_MULTIPLIERS = {64: [1, 2, 3, 4], 256: [1, 1, 2, 2, 4, 4], 512: [1, 1, 2, 2, 4, 4]}
"""The same of super-resolution, by the size of the large images."""
IMPROVED, GUIDED = "improved-diffusion", "guided-diffusion"
OWN_FLAGS = {
    IMPROVED: {"sigma_small"},
    GUIDED: {"num_head_channels", "channel_mult", "resblock_updown", "use_new_attention_order"},
}
OWN_SIZES = {32: IMPROVED, 128: GUIDED}
"""Where only one of the libraries has multipliers for it."""
UNSCALED = ["rescalings=[unscaled_timesteps]"]
"""The choice with which a network receives the number of the step, whatever their number is."""
RESCALING = ("rescale_timesteps", "rescale_learned_sigmas")
"""The flags that are True by default in improved-diffusion, False in guided-diffusion."""


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
            "legacy" for others and for improved-diffusion. The weights do not show it.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming(state_dict, ORIGIN)
    for old, new in OUTER.items():
        names.move(old, new)
    names.move("out.2", "last")
    if names.has("label_emb"):
        table = names.take("label_emb.weight")
        names.result[TABLE] = torch.cat((table, torch.zeros_like(table[:1])))
    return with_blocks(names, model, attention_order)


def with_blocks(names: Renaming, model: Model, attention_order: str) -> dict[str, Tensor]:
    """Move the blocks, which are all that is left, and give the result; see `from_openai`."""
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


class UNetArchitecture(NamedTuple):
    """What the weights of a `UNetModel` show of its architecture.

    Attributes:
        in_channels: of an image.
        enlarges: whether it takes a smaller image too (`SuperResModel`).
        num_classes: None when it is unconditional.
        learn_sigma: whether it puts out a variance.
        channels: width of the first level.
        multipliers: width of each level in `channels`.
        blocks_per_level: in the encoder.
        attends: which levels attend.
        scale_shift: whether the embedding scales and shifts.
        residual_resampling: whether the resolution changes inside residual blocks.
    """

    in_channels: int
    enlarges: bool
    num_classes: int | None
    learn_sigma: bool
    channels: int
    multipliers: list[int]
    blocks_per_level: int
    attends: list[bool]
    scale_shift: bool
    residual_resampling: bool


def read_openai(state_dict: StateDict, flags: str) -> Imported:
    """Read a model of improved-diffusion or guided-diffusion, such as those their READMEs publish.

    What the weights determine is taken from them, and flags must agree with it; any other flag that is not given has
    its default. The two libraries' differ only in what matters for other than 1000 steps: there, these flags must be
    given where nothing shows the model's library. Beside the model, the choices describe its training as far as its
    flags do: with a label dropout of 0, since theirs have learned no "no label". What concerns sampling alone
    (timestep_respacing) and types of numbers (use_fp16) is ignored; weights become float32.

    Args:
        state_dict: of their network.
        flags: MODEL_FLAGS and DIFFUSION_FLAGS, such as "--image_size 64 --learn_sigma True --noise_schedule cosine".

    Raises:
        UserError: when a flag is unknown, of the wrong type, or contradicts the weights; when the weights are
            no `UNetModel`'s or `SuperResModel`'s; or when ours cannot be the same: for channel multipliers that do not
            begin with 1, and for fewer than 128 channels, where our GroupNorm has fewer groups.
    """
    given = parse_flags(flags)
    architecture = _architecture(state_dict)
    image_size = _image_size(given, architecture)
    conditions = class_overrides(architecture.num_classes)
    if architecture.enlarges:
        names = "low_res" if architecture.num_classes is None else "class_label,low_res"
        size = {"size": given.get("small_size", 64)}
        conditions = [f"conditions=[{names}]", *conditions[1:], *settings("conditions.low_res", size)]
    true = {
        "num_channels": architecture.channels,
        "channel_mult": architecture.multipliers,
        "num_res_blocks": architecture.blocks_per_level,
        "learn_sigma": architecture.learn_sigma,
        "class_cond": architecture.num_classes is not None,
        "use_scale_shift_norm": architecture.scale_shift,
        "resblock_updown": architecture.residual_resampling,
    }
    require_agreement(given, true)
    require_attention(given, "attention_resolutions", architecture.attends, image_size)
    model = {
        "channels": architecture.channels,
        "channel_multipliers": architecture.multipliers,
        "blocks_per_level": architecture.blocks_per_level,
        "attention_resolutions": heights(architecture.attends, image_size),
        **_heads(given, architecture),
        "scale_shift": architecture.scale_shift,
        "residual_resampling": architecture.residual_resampling,
        "symmetric_padding": not architecture.residual_resampling,
        "dropout": given.get("dropout", 0.0),
        "checkpointing": given.get("use_checkpoint", False),
    }

    def weights(model: Model) -> dict[str, Tensor]:
        order: Literal["legacy", "new"] = "new" if given.get("use_new_attention_order") else "legacy"
        renamed = from_openai({name: tensor.float() for name, tensor in state_dict.items()}, model, order)
        if architecture.enlarges and TABLE in renamed:  # the labels are then one of two conditions
            renamed[TABLE.replace("condition.", "condition.parts.0.")] = renamed.pop(TABLE)
        return renamed

    return Imported(
        overrides=[
            *_diffusion(given, architecture.learn_sigma, _library(given, image_size)),
            "model=adm_64",
            *settings("model", model),
            *conditions,
        ],
        channels=architecture.in_channels,
        image_size=image_size,
        num_classes=architecture.num_classes,
        weights=weights,
    )


def _architecture(state_dict: StateDict) -> UNetArchitecture:
    """Read it off the names and shapes.

    Raises:
        UserError: when they are not those of a `UNetModel` that ours can represent.
    """
    names = Renaming(state_dict, ORIGIN)
    first, taken = names.take("input_blocks.0.0.weight").shape[:2]
    channels = names.take("time_embed.0.weight").shape[1]
    out_channels = len(names.take("out.2.weight"))
    in_channels = {2: 1, 6: 3}.get(taken, taken)  # of an image and its smaller one, enlarged
    if out_channels not in (in_channels, 2 * in_channels):
        raise UserError(
            f"weights: the network maps {taken} channels to {out_channels}; allowed: C, or 2 C of a super-resolution "
            "model, to C or to 2 C, C the image's"
        )
    # Each step up may end with a change of resolution, in all but the last level.
    steps = sum(names.has(f"output_blocks.{step}.0.out_layers.3") for step in range(len(state_dict)))
    ends = [f"output_blocks.{step}.{place}" for step in range(steps) for place in (1, 2)]
    inside = sum(names.has(f"{end}.in_layers.2") for end in ends)
    levels = 1 + inside + sum(names.has(f"{end}.conv") for end in ends)
    starts = [f"input_blocks.{1 + level * steps // levels}" for level in range(levels)]
    widths = [len(names.take(f"{start}.0.out_layers.3.weight")) for start in starts]
    if first != channels or any(width % channels for width in widths):
        raise UserError(
            f"weights: the first convolution is {first} wide and the levels {widths}, for num_channels {channels}; "
            "allowed: whole multiples of it, once at first (ADM's for 512x512 pixels begins with a half)"
        )
    if channels < 4 * NORM_GROUPS:
        raise UserError(
            f"weights: num_channels is {channels}; allowed: {4 * NORM_GROUPS} or more, for in narrower networks "
            "OpenAI's GroupNorm has more groups than ours"
        )
    return UNetArchitecture(
        in_channels,
        enlarges=taken != in_channels,
        num_classes=len(names.take("label_emb.weight")) if names.has("label_emb") else None,
        learn_sigma=out_channels != in_channels,
        channels=channels,
        multipliers=[width // channels for width in widths],
        blocks_per_level=steps // levels - 1,
        attends=[names.has(f"{start}.1.qkv") for start in starts],
        scale_shift=len(names.take(f"{starts[0]}.0.emb_layers.1.weight")) == 2 * widths[0],
        residual_resampling=inside > 0,
    )


def _image_size(given: Mapping[str, Any], architecture: UNetArchitecture) -> int:
    """The size of the images, which the weights show only through the multipliers that go with it."""
    enlarges = architecture.enlarges
    flag, default, sizes = ("large_size", 256, LARGE_MULTIPLIERS) if enlarges else ("image_size", 64, MULTIPLIERS)
    for name in ("image_size", "channel_mult") if enlarges else ("large_size", "small_size"):
        if name in given:
            kind = "also take a smaller image" if enlarges else "take no smaller image"
            instead = "--large_size and --small_size" if enlarges else "--image_size"
            raise UserError(f"flags: --{name} is {_shown(given[name])}; the weights {kind}: give {instead} instead")
    size: int = given.get(flag, default)
    fitting = [str(each) for each, multipliers in sizes.items() if multipliers == architecture.multipliers]
    if "channel_mult" not in given and sizes.get(size) != architecture.multipliers:
        allowed = " or ".join([*fitting, *([] if enlarges else ["another with its --channel_mult"])])
        multipliers = _shown(architecture.multipliers)
        raise UserError(f"flags: --{flag} is {size}; allowed: {allowed}, for the weights' multipliers {multipliers}")
    return size


def require_agreement(given: Mapping[str, Any], true: Mapping[str, Any]) -> None:
    """Check that the flags agree with the weights."""
    for name, value in true.items():
        if given.get(name, value) != value:
            raise UserError(
                f"flags: --{name} is {_shown(given[name])}; allowed: {_shown(value)}, as the weights have it"
            )


def require_attention(given: Mapping[str, Any], name: str, attends: list[bool], image_size: int) -> None:
    """Check that a flag places the attention where the weights have it."""
    if name not in given:
        return
    # Theirs counts how many times smaller a feature map is.
    scales = {image_size // height for height in given[name]}
    if [2**level in scales for level in range(len(attends))] != attends:
        raise UserError(
            f"flags: --{name} is {_shown(given[name])} with --image_size {image_size}; allowed: "
            f"{_shown(heights(attends, image_size))}, as the weights have it"
        )


def heights(attends: list[bool], image_size: int) -> list[int]:
    """Of the feature maps that attend."""
    return [image_size // 2**level for level, attending in enumerate(attends) if attending]


def _shown(value: Any) -> str:
    """A value as a flag has it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _heads(given: Mapping[str, Any], architecture: UNetArchitecture) -> dict[str, int | None]:
    """How attention is split into heads, which the weights do not show."""
    name = "num_heads" if given.get("num_head_channels") is None else "num_head_channels"
    value = given.get(name, 4)
    upsample = given.get("num_heads_upsample")
    if name == "num_heads" and upsample not in (None, value):
        raise UserError(f"flags: --num_heads_upsample is {upsample}; allowed: -1 or {value}, as many as in the encoder")
    attending = zip(architecture.multipliers, (*architecture.attends[:-1], True), strict=True)
    widths = [architecture.channels * multiplier for multiplier, attends in attending if attends]
    if any(width % value for width in widths):
        raise UserError(f"flags: --{name} is {value}; allowed: a divisor of the widths that attend, {_shown(widths)}")
    return {"heads": None, "head_channels": None, name.removeprefix("num_"): value}


def _library(given: Mapping[str, Any], image_size: int) -> str | None:
    """Which library the flags are from, where they show it."""
    own = {name: sorted(flags & given.keys()) for name, flags in OWN_FLAGS.items()}
    if all(own.values()):
        (improved, *_), (guided, *_) = own.values()
        raise UserError(
            f"flags: --{improved} is {given[improved]} beside --{guided}; allowed: one of them, for the first is "
            f"{IMPROVED}'s alone, the second {GUIDED}'s"
        )
    return next((name for name, flags in own.items() if flags), OWN_SIZES.get(image_size))


def _diffusion(given: Mapping[str, Any], learned: bool, library: str | None) -> list[str]:
    """The choices that make the diffusion and its training."""
    steps = given.get("diffusion_steps", 1000)
    predicted = "x" if given.get("predict_xstart") else "eps"
    fixed = "fixed_small" if given.get("sigma_small") else "fixed_large"
    if given.get("use_kl"):
        training = ["objective=vlb", "time_sampler=loss_aware"]
    else:
        training = [f"objective={'hybrid' if learned else 'simple'}", "time_sampler=uniform"]
    rescalings: list[str] = []
    if steps != 1000:
        rescales = _rescales(given, RESCALING[: 1 + (learned and not given.get("use_kl", False))], library)
        if not rescales["rescale_timesteps"]:
            rescalings = UNSCALED
        if not rescales.get("rescale_learned_sigmas", True):  # then a step's term counts in full, not T / 1000 times
            training += settings("objective", {"vlb_weight": 1 / steps})
    return [
        f"formulation={'iddpm' if learned else 'ddpm'}",
        *noise_process(given),
        *rescalings,
        f"parameterization={predicted}",
        f"weighting=unit_{predicted}",
        f"variance={'learned_range' if learned else fixed}",
        *training,
    ]


def noise_process(given: Mapping[str, Any]) -> list[str]:
    """The choices that make the noise schedule."""
    steps, schedule = given.get("diffusion_steps", 1000), given.get("noise_schedule", "linear")
    fields = {"num_steps": steps} | ({"rescale": True} if schedule == "linear" else {})
    return [f"schedule={schedule}", *settings("schedule", fields)]


def _rescales(given: Mapping[str, Any], names: tuple[str, ...], library: str | None) -> dict[str, bool]:
    """The values of flags whose defaults the two libraries do not share."""
    missing = [name for name in names if name not in given]
    if missing and library is None:
        raise UserError(
            f"flags: --{' and --'.join(missing)} must be given, with other than 1000 --diffusion_steps; allowed: True "
            f"({IMPROVED}'s default) or False ({GUIDED}'s), for the other flags may be of either"
        )
    return {name: given.get(name, library == IMPROVED) for name in names}
