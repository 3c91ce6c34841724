"""EDM's networks: `SongUNet` (DDPM++, NCSN++) and `DhariwalUNet` (ADM)."""

import math
import re
from typing import Any

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.imported import Imported
from langevin.interop.renaming import Renaming, StateDict, class_overrides, linear, settings
from langevin.networks.blocks.block import NORM_GROUPS

ORIGIN = "EDM's SongUNet or DhariwalUNet"
LAYERS = {
    "norm0": "norm1",
    "conv0": "conv1",
    "affine": "embed",
    "norm1": "norm2",
    "conv1": "conv2",
    "skip": "shortcut",
}
UNUSED = re.compile(r".*\.resample_filter")
AUGMENT = "map_augment"
STEP = re.compile(r"(enc|dec)\.(\d+)x\d+_([a-z_]+)(\d*)\..+")
ORDER = ("conv", "in", "up", "down", "aux_down", "aux_skip", "aux_residual", "block", "aux_up", "aux_norm", "aux_conv")
"""Of the steps within a resolution."""
PRECONDITIONED = "model."
"""What the names begin with in `EDMPrecond`."""
HEAD_CHANNELS = 64
"""In `DhariwalUNet`."""
LABELS = 9
"""Of augmentation, where every kind of transformation is there: those of `conditions=[augmentation]` by default."""


def from_edm(state_dict: StateDict, augmentation: bool = False) -> dict[str, Tensor]:
    """Give the weights of a `SongUNet` or `DhariwalUNet` the names they have in our `UNet`.

    Ours is built as in conf/model/ddpmpp.yaml or ncsnpp.yaml, or with `time_embedding="cosine_first"`, `scale_shift`,
    `residual_resampling`, `norm_epsilon=1e-5` and `head_channels=64` for a `DhariwalUNet`. Class labels come as a
    table, its last row what no label gives. Augmentation labels are zero when sampling, so that only further training
    needs their weights.

    Args:
        state_dict: of their network without its preconditioning.
        augmentation: whether ours has the condition `augmentation`, the last of its conditions, and so these weights;
            of a `SongUNet` alone, since a `DhariwalUNet` adds them elsewhere than a label.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    kept = {name: tensor for name, tensor in state_dict.items() if not UNUSED.fullmatch(name)}
    names = Renaming(kept, ORIGIN)
    augment = names.take(f"{AUGMENT}.weight") if names.has(AUGMENT) else None
    names.move("map_layer0", "time.linear1")
    names.move("map_layer1", "time.linear2")
    if "map_noise.freqs" in names.rest:
        names.result["time.features.frequencies"] = names.take("map_noise.freqs")
    tables = _label(names)
    if augmentation and augment is not None:
        tables["embed.weight"] = augment
    for place, (name, weight) in enumerate(tables.items()):  # each of several conditions is numbered
        names.result[f"condition.parts.{place}.{name}" if len(tables) > 1 else f"condition.{name}"] = weight

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


def _steps(state_dict: StateDict, part: str) -> list[tuple[int, str]]:
    """The steps of encoder or decoder, (resolution, name), in the order of computation, not of their names."""
    found = set()
    for name in state_dict:
        match = STEP.fullmatch(name)
        if match is not None and match[3] not in ORDER:
            raise UserError(f"weights: '{name}' is unknown; allowed: the weights of {ORIGIN}")
        if match is not None and match[1] == part:
            found.add((int(match[2]), match[3], match[4]))
    down = -1 if part == "enc" else 1
    ordered = sorted(found, key=lambda each: (down * each[0], ORDER.index(each[1]), int(each[2] or 0)))
    return [(resolution, f"{step}{number}") for resolution, step, number in ordered]


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


def _label(names: Renaming) -> dict[str, Tensor]:
    """Tabulate the linear layer of the label, which a network with a bias there feeds sqrt(number of classes)."""
    if not names.has("map_label"):
        return {}
    rows = names.take("map_label.weight").T
    table = torch.cat((rows, torch.zeros_like(rows[:1])))
    if "map_label.bias" in names.rest:
        table = table * math.sqrt(len(rows)) + names.take("map_label.bias")
    return {"table.weight": table}


def read_edm(state_dict: StateDict) -> Imported:
    """Read a network of EDM's in its preconditioning, `EDMPrecond`: the names and shapes determine all of it.

    EDM publishes pickles of programs, which are not run here. In EDM's own environment, two lines save the weights:

        with open("edm-cifar10-32x32-cond-vp.pkl", "rb") as file: network = pickle.load(file)["ema"]
        torch.save(network.state_dict(), "edm.pt")

    The weights do not distinguish `EDMPrecond` from `VPPrecond` and `VEPrecond`, which give the same network other
    inputs and its output another meaning: a checkpoint of these (EDM's baselines) is read without an error, but makes
    no images. Nor do they show sigma_data, 0.5 unless changed, and the dropout of training, for which the choices have
    that of EDM's recipe. Weights become float32.

    Args:
        state_dict: of `EDMPrecond`, or of the network in it.

    Raises:
        UserError: when it is of `iDDPMPrecond`, of no network of EDM's, or of one that ours cannot be.
    """
    if "u" in state_dict:
        raise UserError(
            "weights: 'u' is a buffer of iDDPMPrecond, whose network also puts out a variance; "
            "allowed: the weights of EDMPrecond"
        )
    network = {name.removeprefix(PRECONDITIONED): tensor.float() for name, tensor in state_dict.items()}
    names = Renaming(network, ORIGIN)
    embedding, features = names.take("map_layer0.weight").shape
    encoder, decoder = _steps(network, "enc"), _steps(network, "dec")
    _require_no_skip(encoder, decoder)
    sizes = list(dict.fromkeys(size for size, _ in encoder))
    image_size = sizes[0] if sizes else 0
    first, in_channels = names.take(f"enc.{image_size}x{image_size}_conv.weight").shape[:2]
    song = not names.has("out_conv")
    last = f"dec.{image_size}x{image_size}_aux_conv" if song else "out_conv"
    out_channels = len(names.take(f"{last}.weight"))
    if out_channels != in_channels:
        raise UserError(
            f"weights: the network maps {in_channels} channels to {out_channels}; allowed: as many to as many, for "
            "that of iDDPMPrecond also puts out a variance"
        )

    starts = [f"enc.{size}x{size}_block0" for size in sizes]
    widths = [len(names.take(f"{start}.conv1.weight")) for start in starts]
    attends = [names.has(f"{start}.qkv") for start in starts]
    fourier = "map_noise.freqs" in network
    channels = features // (2 if fourier else 1)
    if first != channels or embedding != 4 * channels or any(width % channels for width in widths):
        raise UserError(
            f"weights: the first convolution is {first} wide, the levels {widths}, and the embedding's layer maps "
            f"{features} features to {embedding}; allowed: C, multiples of C, and C (2 C with Fourier features) to 4 C"
        )
    _require_widths(channels, [width for width, here in zip(widths, (*attends[:-1], True), strict=True) if here], song)
    model: dict[str, Any] = {
        "channels": channels,
        "channel_multipliers": [width // channels for width in widths],
        "blocks_per_level": sum(step.startswith("block") for size, step in encoder if size == image_size),
        "attention_resolutions": [size for size, here in zip(sizes, attends, strict=True) if here],
    }
    progressive = any(step == "aux_residual" for _, step in encoder)
    if song:
        model |= {
            "time_embedding": "fourier" if fourier else "sinusoidal",
            "resample_filter": _taps(network),
            "progressive_input": progressive,
        }
    labels = names.take("map_label.weight").shape[1] if names.has("map_label") else None
    augments = names.take(f"{AUGMENT}.weight").shape[1] if names.has(AUGMENT) else 0
    augmentation = song and augments == LABELS
    notes = (
        f"The weights of {augments} labels of augmentation, which only training uses, are left out: there are {LABELS} "
        "where every kind of transformation is told to a SongUNet.",
    )
    return Imported(
        overrides=[
            "formulation=edm",
            "schedule=edm",
            "parameterization=edm",
            f"model={('ncsnpp' if progressive else 'ddpmpp') if song else 'adm_64'}",
            *settings("model", model),
            *class_overrides(labels, "augmentation" if augmentation else None),
        ],
        channels=in_channels,
        image_size=image_size,
        num_classes=labels,
        weights=lambda _: from_edm(network, augmentation),
        notes=notes if augments and not augmentation else (),
    )


def _require_no_skip(encoder: list[tuple[int, str]], decoder: list[tuple[int, str]]) -> None:
    """Refuse the pyramids that ours has not."""
    for size, step in (*encoder, *decoder):
        if step in ("aux_down", "aux_skip", "aux_up"):
            raise UserError(
                f"weights: there is a step '{size}x{size}_{step}', of a SongUNet with encoder_type or decoder_type "
                "'skip'; allowed: encoder_type 'standard' or 'residual', and decoder_type 'standard'"
            )


def _require_widths(channels: int, attending: list[int], song: bool) -> None:
    """Refuse widths, of the first level and of those that attend, at which ours would have other groups or heads."""
    if channels % NORM_GROUPS:
        raise UserError(f"weights: model_channels is {channels}; allowed: a multiple of {NORM_GROUPS}, as ours has")
    if not song and any(width % HEAD_CHANNELS for width in attending):
        raise UserError(
            f"weights: the levels that attend are {attending} wide; allowed: multiples of {HEAD_CHANNELS}, the width "
            "of a head in DhariwalUNet"
        )


def _taps(state_dict: StateDict) -> list[float]:
    """The taps of a network's filter, the first of them 1; the box where it has none."""
    kernels = (tensor for name, tensor in state_dict.items() if name.endswith(".resample_filter"))
    row = next(kernels, torch.ones(1, 1, 2, 2)).sum(dim=(0, 1, 2))
    return [round(tap, 6) for tap in (row / row[0]).tolist()]
