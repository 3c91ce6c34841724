"""OpenAI's classifiers of noisy images, guided-diffusion's `EncoderUNetModel`: weights, and models with their flags."""

from typing import NamedTuple

from torch import Tensor

from langevin.errors import UserError
from langevin.interop.imported import Imported
from langevin.interop.openai import (
    MULTIPLIERS,
    OUTER,
    UNSCALED,
    heights,
    noise_process,
    require_agreement,
    require_attention,
    with_blocks,
)
from langevin.interop.openai_flags import CLASSIFIER_FLAGS, FLAGS, parse_flags
from langevin.interop.renaming import Model, Renaming, StateDict, linear, settings
from langevin.networks.blocks.block import NORM_GROUPS

ORIGIN = "OpenAI's EncoderUNetModel"
PLACE = "out.2.positional_embedding"
SIZES = (64, 128, 256)
"""Of the images; the classifier for 512 begins with half its width."""
HEAD_CHANNELS = 64
"""In all that their `create_classifier` makes."""
STEPS = 1000


def from_openai_classifier(state_dict: StateDict, network: Model) -> dict[str, Tensor]:
    """Give the weights of an `EncoderUNetModel` that pools by attention the names they have in our `HalfUNet`.

    Ours is built with `time_embedding="cosine_first"`, `norm_epsilon=1e-5`, and `symmetric_padding` or
    `residual_resampling` (their `resblock_updown`); theirs without `use_new_attention_order`, as all are that their
    `create_classifier` makes.

    Args:
        state_dict: of their network, which may be on any device.
        network: the parameters of ours, such as {"channels": 128, ...}; only the heads are looked at.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming(state_dict, ORIGIN)
    for old, new in OUTER.items():
        names.move(old, new)
    names.result["pool.place"] = names.take(PLACE).T
    for old, new in {"out.2.qkv_proj": "pool.qkv", "out.2.c_proj": "pool.project"}.items():
        names.move(old, new)
        names.result[f"{new}.weight"] = linear(names.result[f"{new}.weight"])
    return with_blocks(names, network, "legacy")


class ClassifierArchitecture(NamedTuple):
    """What the weights of an `EncoderUNetModel` show of its architecture.

    Attributes:
        in_channels: of an image.
        image_size: its height and width.
        num_classes: how many it distinguishes.
        channels: width of the first level.
        blocks_per_level: of the residual blocks.
        attends: which levels attend.
        scale_shift: whether the embedding scales and shifts.
        residual_resampling: whether the resolution changes inside residual blocks.
    """

    in_channels: int
    image_size: int
    num_classes: int
    channels: int
    blocks_per_level: int
    attends: list[bool]
    scale_shift: bool
    residual_resampling: bool


def read_openai_classifier(state_dict: StateDict, flags: str) -> Imported:
    """Read a classifier of guided-diffusion, such as those its README publishes for 64, 128 and 256 pixels.

    What the weights determine is taken from them, and flags must agree with it; the rest is the noise process of its
    training, given by the flags of the diffusion or their defaults. MODEL_FLAGS may be given too, as in the
    README, and are ignored: they belong to the guided model. So are flags of sampling alone (classifier_scale) and of
    types of numbers (classifier_use_fp16); weights become float32.

    Args:
        state_dict: of their network.
        flags: CLASSIFIER_FLAGS and DIFFUSION_FLAGS, such as "--image_size 64 --classifier_depth 4 --noise_schedule
            cosine".

    Raises:
        UserError: when a flag is unknown, of the wrong type, or contradicts the weights; when the weights are
            no `EncoderUNetModel`'s; or when ours cannot be the same: for a pooling other than by attention, for 512
            pixels, and for fewer than 128 channels, where our GroupNorm has fewer groups.
    """
    given = parse_flags(flags, FLAGS | CLASSIFIER_FLAGS)
    architecture = _architecture(state_dict)
    true = {
        "image_size": architecture.image_size,
        "classifier_width": architecture.channels,
        "classifier_depth": architecture.blocks_per_level,
        "classifier_use_scale_shift_norm": architecture.scale_shift,
        "classifier_resblock_updown": architecture.residual_resampling,
    }
    require_agreement(given, true)
    require_attention(given, "classifier_attention_resolutions", architecture.attends, architecture.image_size)
    network = {
        "channels": architecture.channels,
        "channel_multipliers": MULTIPLIERS[architecture.image_size],
        "blocks_per_level": architecture.blocks_per_level,
        "attention_resolutions": heights(architecture.attends, architecture.image_size),
        "head_channels": HEAD_CHANNELS,
        "scale_shift": architecture.scale_shift,
        "residual_resampling": architecture.residual_resampling,
        "symmetric_padding": not architecture.residual_resampling,
        "dropout": 0.0,
    }

    def weights(network: Model) -> dict[str, Tensor]:
        return from_openai_classifier({name: tensor.float() for name, tensor in state_dict.items()}, network)

    return Imported(
        overrides=[
            "task=classifier",
            "classifier=adm_64",
            *settings("classifier", network),
            *noise_process(given),
            # guided-diffusion trains a classifier so, whatever --rescale_timesteps is.
            *(UNSCALED if given.get("diffusion_steps", STEPS) != STEPS else []),
            "parameterization=eps",
        ],
        channels=architecture.in_channels,
        image_size=architecture.image_size,
        num_classes=architecture.num_classes,
        weights=weights,
    )


def _architecture(state_dict: StateDict) -> ClassifierArchitecture:
    """Read it off the names and shapes.

    Raises:
        UserError: when they are not those of an `EncoderUNetModel` that ours can represent.
    """
    if PLACE not in state_dict:
        raise UserError(
            f"weights: '{PLACE}' is missing; allowed: a classifier that pools by attention (--classifier_pool "
            "attention), not one of adaptive, spatial or spatial_v2"
        )
    names = Renaming(state_dict, ORIGIN)
    first, in_channels = names.take("input_blocks.0.0.weight").shape[:2]
    channels = names.take("time_embed.0.weight").shape[1]
    widths = [first]
    while convolutions := [
        name
        for name in ("out_layers.3.weight", "op.weight")  # of a residual block, or strided and alone
        if f"input_blocks.{len(widths)}.0.{name}" in names.rest
    ]:
        widths.append(len(names.take(f"input_blocks.{len(widths)}.0.{convolutions[0]}")))
    image_size, blocks = _size_and_depth(channels, widths)
    starts = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(len(MULTIPLIERS[image_size]))]
    return ClassifierArchitecture(
        in_channels,
        image_size,
        num_classes=len(names.take("out.2.c_proj.weight")),
        channels=channels,
        blocks_per_level=blocks,
        attends=[names.has(f"{start}.1.qkv") for start in starts],
        scale_shift=len(names.take(f"{starts[0]}.0.emb_layers.1.weight")) == 2 * channels,
        residual_resampling=not any(name.endswith(".op.bias") for name in names.rest),
    )


def _size_and_depth(channels: int, widths: list[int]) -> tuple[int, int]:
    """The size of the images and the residual blocks in each level, inferred from the widths after each step."""
    if channels < 4 * NORM_GROUPS:
        raise UserError(
            f"weights: classifier_width is {channels}; allowed: {4 * NORM_GROUPS} or more, for in narrower networks "
            "OpenAI's GroupNorm has more groups than ours"
        )
    for size in SIZES:
        levels = [channels * multiplier for multiplier in MULTIPLIERS[size]]
        blocks = len(widths) // len(levels) - 1
        # A level begins at the width of the one before.
        pairs = zip([levels[0], *levels], levels, strict=False)
        if blocks > 0 and widths == [each for before, width in pairs for each in (before, *[width] * blocks)]:
            return size, blocks
    raise UserError(
        f"weights: for classifier_width {channels} the steps are {widths} wide; allowed: as those of "
        f"guided-diffusion's classifiers for {', '.join(map(str, SIZES))} pixels (that for 512 begins with half the "
        "width)"
    )
