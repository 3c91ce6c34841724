"""The command lines that go with OpenAI's checkpoints, which hold weights alone: MODEL_FLAGS and the like."""

import math
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from langevin.errors import UserError


class Kind(NamedTuple):
    """What a flag may be given.

    Attributes:
        read: its value from its text; raises KeyError or ValueError on any other.
        allowed: the same in words.
    """

    read: Callable[[str], Any]
    allowed: str


def _whole(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _whole_or_unset(text: str) -> int | None:
    return None if text == "-1" else _whole(text)


def _probability(text: str) -> float:
    if not 0 <= float(text) < 1:
        raise ValueError
    return float(text)


def _number(text: str) -> float:
    if not 0 <= float(text) < math.inf:
        raise ValueError
    return float(text)


TRUTH = dict.fromkeys(("yes", "true", "t", "y", "1"), True) | dict.fromkeys(("no", "false", "f", "n", "0"), False)
SCHEDULES = {name: name for name in ("linear", "cosine")}

WHOLE = Kind(_whole, "a whole number, at least 1")
UNSET = Kind(_whole_or_unset, "a whole number, at least 1, or -1 for unset")
PROBABILITY = Kind(_probability, "a number, at least 0, below 1")
NUMBER = Kind(_number, "a number, at least 0")
LIST = Kind(lambda text: [_whole(item) for item in text.split(",")], "whole numbers with commas between, such as 16,8")
BOOLEAN = Kind(lambda text: TRUTH[text.lower()], "True or False")

FLAGS = {
    "image_size": WHOLE,
    "large_size": WHOLE,
    "small_size": WHOLE,
    "num_channels": WHOLE,
    "num_res_blocks": WHOLE,
    "channel_mult": LIST,
    "num_heads": WHOLE,
    "num_heads_upsample": UNSET,
    "num_head_channels": UNSET,
    "attention_resolutions": LIST,
    "dropout": PROBABILITY,
    "learn_sigma": BOOLEAN,
    "sigma_small": BOOLEAN,
    "class_cond": BOOLEAN,
    "use_scale_shift_norm": BOOLEAN,
    "resblock_updown": BOOLEAN,
    "use_new_attention_order": BOOLEAN,
    "use_checkpoint": BOOLEAN,
    "use_fp16": BOOLEAN,
    "diffusion_steps": WHOLE,
    "noise_schedule": Kind(SCHEDULES.__getitem__, "linear or cosine"),
    "timestep_respacing": Kind(str, "any"),
    "use_kl": BOOLEAN,
    "predict_xstart": BOOLEAN,
    "rescale_timesteps": BOOLEAN,
    "rescale_learned_sigmas": BOOLEAN,
}
"""Every flag of a model and its diffusion in improved-diffusion or guided-diffusion (their script_util.py)."""

CLASSIFIER_FLAGS = {
    "classifier_width": WHOLE,
    "classifier_depth": WHOLE,
    "classifier_attention_resolutions": LIST,
    "classifier_use_scale_shift_norm": BOOLEAN,
    "classifier_resblock_updown": BOOLEAN,
    "classifier_pool": Kind({"attention": "attention"}.__getitem__, "attention"),
    "classifier_use_fp16": BOOLEAN,
    "classifier_scale": NUMBER,
}
"""Those of a classifier in guided-diffusion, beside the size and the noise, and of guidance by it."""


def parse_flags(text: str, kinds: Mapping[str, Kind] = FLAGS) -> dict[str, Any]:
    """Read flags, "--name value" or "--name=value", of which the last of a name counts, as in the two libraries.

    Args:
        text: the flags.
        kinds: those that may be given.

    Returns:
        the value of each flag that is given; None for what is given as unset.

    Raises:
        UserError: when one is unknown, or its value is not of its kind.
    """
    try:
        words = iter(shlex.split(text))
    except ValueError as error:  # an open quotation
        raise UserError(f"flags: {text} cannot be read ({error}); allowed: --name value, one after the other") from None
    flags = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in kinds or not word.startswith("--"):
            raise UserError(f"flags: {word} is unknown; allowed: --{', --'.join(kinds)}")
        kind = kinds[name]
        if not equals:
            value = next(words, "")
        try:
            flags[name] = kind.read(value)
        except (KeyError, ValueError):
            raise UserError(f"flags: --{name} is '{value}'; allowed: {kind.allowed}") from None
    return flags
