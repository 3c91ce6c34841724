"""Weights of EDM's networks: `SongUNet` (DDPM++, NCSN++) and `DhariwalUNet` (ADM)."""

import math
import re

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.renaming import Renaming, StateDict, linear

LAYERS = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "embed",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "shortcut",
}
UNUSED = re.compile(r".*\.resample_filter|map_augment\.weight")
STEP = re.compile(r"(enc|dec)\.(\d+)x\d+_(\w+)\..+")


def from_edm(state_dict: StateDict) -> dict[str, Tensor]:
    """Give the weights of a `SongUNet` or `DhariwalUNet` the names they have in our `UNet`.

    Ours is built as conf/model/ddpmpp.yaml or ncsnpp.yaml say, or with `time_embedding="cosine_first"`, `scale_shift`,
    `residual_resampling`, `norm_epsilon=1e-5` and `head_channels=64` for a `DhariwalUNet`. Class labels come as a
    table, its last row what no label gives. The weights for augmentation labels are left out: these are zero when
    sampling.

    Args:
        state_dict: of their network without its preconditioning, in its own order.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    kept = {name: tensor for name, tensor in state_dict.items() if not UNUSED.fullmatch(name)}
    names = Renaming(kept, "EDM's SongUNet or DhariwalUNet")
    names.move("map_layer0", "time.linear1")
    names.move("map_layer1", "time.linear2")
    if "map_noise.freqs" in names.rest:
        names.result["time.features.frequencies"] = names.take("map_noise.freqs")
    _label(names)

    index = 0
    for resolution, step in _steps(kept, "enc"):
        source = f"enc.{resolution}x{resolution}_{step}"
        if step == "conv":
            names.move(source, "first")
        elif step == "aux_residual":  # joins what the step before it gave
            names.move(source, f"progressive.{index - 1}.conv")
        else:
            _block(names, source, f"down.{index}.blocks", 0)
            index += 1

    index = place = 0
    for resolution, step in _steps(kept, "dec"):
        source = f"dec.{resolution}x{resolution}_{step}"
        if step.startswith("in"):
            place = _block(names, source, "middle.blocks", place)
        elif step.startswith("block"):
            place = _block(names, source, f"up.{index}.blocks", 0)
            index += 1
        elif step == "up":  # ends the step before it
            _block(names, source, f"up.{index - 1}.blocks", place)
        elif step in ("aux_norm", "aux_conv"):
            names.move(source, {"aux_norm": "norm", "aux_conv": "last"}[step])
        else:
            raise UserError(f"weights: '{source}' is unknown; allowed: the weights of {names.origin}")
    if names.has("out_norm"):
        names.move("out_norm", "norm")
        names.move("out_conv", "last")
    return names.finished()


def _steps(state_dict: StateDict, part: str) -> list[tuple[str, str]]:
    """The steps of encoder or decoder, (resolution, name), in their order."""
    matches = (STEP.fullmatch(name) for name in state_dict)
    return list(dict.fromkeys((match[2], match[3]) for match in matches if match is not None and match[1] == part))


def _block(names: Renaming, source: str, target: str, place: int) -> int:
    """Move a `UNetBlock`, one or two blocks of ours, to `target`.`place`; give the place after them."""
    for old, new in LAYERS.items():
        if names.has(f"{source}.{old}"):
            names.move(f"{source}.{old}", f"{target}.{place}.{new}")
    if not names.has(f"{source}.qkv"):
        return place + 1
    attention = f"{target}.{place + 1}"
    names.move(f"{source}.norm2", f"{attention}.norm")
    names.move(f"{source}.proj", f"{attention}.project")
    names.result[f"{attention}.project.weight"] = linear(names.result[f"{attention}.project.weight"])
    for kind in ("weight", "bias"):
        # Theirs lie as (heads * channels, query | key | value).
        parts = names.take(f"{source}.qkv.{kind}")
        parts = linear(parts) if parts.ndim > 1 else parts
        names.result[f"{attention}.qkv.{kind}"] = parts.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
    return place + 2


def _label(names: Renaming) -> None:
    """Tabulate the linear layer of the label, which a network with a bias there feeds sqrt(number of classes)."""
    if not names.has("map_label"):
        return
    rows = names.take("map_label.weight").T
    table = torch.cat((rows, torch.zeros_like(rows[:1])))
    if "map_label.bias" in names.rest:
        table = table * math.sqrt(len(rows)) + names.take("map_label.bias")
    names.result["condition.table.weight"] = table
