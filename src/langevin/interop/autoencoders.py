"""Folders of diffusers that hold an autoencoder, `AutoencoderKL` or `VQModel`, both ways."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.interop.autoencoder_weights import CONVOLUTIONS, DIFFUSERS, fold, renamed, to_diffusers
from langevin.interop.diffusers import Known, completed, refuse_unknown
from langevin.interop.folder import NETWORK_FILE, DiffusersPart, read_json, read_network, write_json
from langevin.interop.imported import Imported
from langevin.interop.origin import RECORD_FILE
from langevin.interop.renaming import Model, StateDict, settings
from langevin.networks.autoencoders.autoencoder import Autoencoder
from langevin.networks.autoencoders.kl import KLAutoencoder
from langevin.networks.autoencoders.vq import VQAutoencoder
from langevin.networks.blocks.block import NORM_EPSILON, normalization

KL, VQ = "AutoencoderKL", "VQModel"
STABLE_DIFFUSION = 0.18215
"""The scale of latents where a config of an `AutoencoderKL` names none: such configs are older than the field."""

COMMON: Known = {
    "in_channels": (3, "Annotated[int, Ge(1)]"),
    "down_block_types": (["DownEncoderBlock2D"], "list[Literal['DownEncoderBlock2D']]"),
    "up_block_types": (["UpDecoderBlock2D"], "list[Literal['UpDecoderBlock2D']]"),
    "block_out_channels": ([64], "list[Annotated[int, Ge(1)]]"),
    "layers_per_block": (1, "Annotated[int, Ge(1)]"),
    "act_fn": ("silu", "Literal['silu', 'swish']"),
    "norm_num_groups": (32, "Annotated[int, Ge(1)]"),
    "sample_size": (32, "Annotated[int, Ge(1)] | tuple[Annotated[int, Ge(1)], Annotated[int, Ge(1)]]"),
    "mid_block_add_attention": (True, "bool"),
    "force_upcast": (True, "bool"),
}
FIELDS: Mapping[str, Known] = {
    KL: {
        **COMMON,
        "latent_channels": (4, "Annotated[int, Ge(1)]"),
        "scaling_factor": (STABLE_DIFFUSION, "Annotated[float, Gt(0)]"),
        "shift_factor": (None, "float | None"),
        "latents_mean": (None, "list[float] | None"),
        "latents_std": (None, "list[Annotated[float, Gt(0)]] | None"),
        "use_quant_conv": (True, "bool"),
        "use_post_quant_conv": (True, "bool"),
    },
    VQ: {
        **COMMON,
        "latent_channels": (3, "Annotated[int, Ge(1)]"),
        "num_vq_embeddings": (256, "Annotated[int, Ge(2)]"),
        "vq_embed_dim": (None, "Annotated[int, Ge(1)] | None"),
        "norm_type": ("group", "Literal['group']"),
        "lookup_from_codebook": (False, "bool"),
        # Diffusers' default is that of Stable Diffusion, which no VQModel has: where it is missing it is unknown.
        "scaling_factor": (None, "Annotated[float, Gt(0)] | None"),
    },
}
"""The fields of a config by its class."""
LATENTS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
"""The fields that say how a pipeline scales latents: z' = (z - shift_factor) * scaling_factor."""


def is_autoencoder(folder: Path) -> bool:
    """Whether a folder is one of diffusers for an autoencoder alone."""
    file = folder / NETWORK_FILE
    return file.is_file() and str(read_json(file).get("_class_name")) in FIELDS


class ReadAutoencoder(NamedTuple):
    """What a folder of an autoencoder says.

    Attributes:
        overrides: the choices of the autoencoder.
        config: diffusers' fields, with all that it leaves to defaults.
        rename: gives the weights, under our names, called with our network's parameters.
        origin: its class, and how pipelines scale its latents.
    """

    overrides: list[str]
    config: Mapping[str, Any]
    rename: Callable[[Model], dict[str, Tensor]]
    origin: Mapping[str, Any]


def read_autoencoder(folder: Path) -> Imported:
    """Read a folder of diffusers that holds an `AutoencoderKL` or a `VQModel`, such as Stable Diffusion's vae/.

    Raises:
        UserError: when a file is missing or damaged, or holds something that we have not.
    """
    read = read_part(folder)
    return Imported(
        ["task=autoencoder", *read.overrides],
        read.config["in_channels"],
        read.config["sample_size"],
        None,
        read.rename,
        scaling_notes(read.origin),
        read.origin,
    )


def read_part(folder: Path) -> ReadAutoencoder:
    """The same, as a part of a pipeline.

    Raises:
        UserError: as `read_autoencoder`.
    """
    where = str(folder / NETWORK_FILE)
    config = read_json(folder / NETWORK_FILE)
    kind = completed(where, config, {"_class_name": (None, f"Literal{list(FIELDS)}")})["_class_name"]
    own = autoencoder_config(where, kind, config)
    widths = own["block_out_channels"]
    channels = math.gcd(*widths)
    fields = {
        "latent_channels": own["latent_channels"],
        "channels": channels,
        "channel_multipliers": [width // channels for width in widths],
        "blocks_per_level": own["layers_per_block"],
        "middle_attention": own["mid_block_add_attention"],
        "norm_groups": own["norm_num_groups"],
        "norm_epsilon": NORM_EPSILON,
    }
    if kind == VQ:
        fields["num_codes"] = own["num_vq_embeddings"]
    weights = with_outer_convolutions(read_network(folder), own)
    origin = {"class": kind, **{name: own[name] for name in LATENTS if own.get(name) is not None}}
    return ReadAutoencoder(choices(kind, fields), own, lambda model: renamed(weights, model, DIFFUSERS), origin)


def scaling_notes(origin: Mapping[str, Any]) -> tuple[str, ...]:
    """What to choose for latents to be scaled as in the pipelines of where an autoencoder comes from."""
    factor, shift = origin.get("scaling_factor"), origin.get("shift_factor")
    if factor is None:
        return ()
    if shift:
        return (
            f"its pipelines scale latents by {factor} after a shift of {shift}; a codec here scales them by your data",
        )
    return (f"its pipelines scale latents by {factor}, as codec.scaling={factor} does; by default your data decides",)


def autoencoder_config(where: str, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an autoencoder of diffusers, with all that it leaves to defaults.

    Args:
        where: its place, for messages.
        kind: its class.
        config: its fields.

    Raises:
        UserError: when ours has no such part.
    """
    refuse_unknown(where, config, (*FIELDS[kind], "out_channels"))
    own = completed(where, config, FIELDS[kind])
    completed(where, config, {"out_channels": (3, f"Literal[{own['in_channels']}]")})
    completed(where, config, {"vq_embed_dim": (None, f"Literal[{own['latent_channels']}] | None")})
    widths, groups = own["block_out_channels"], own["norm_num_groups"]
    for name in ("down_block_types", "up_block_types"):
        if len(own[name]) != len(widths):
            raise UserError(f"{where}: {name} are {len(own[name])}; allowed: {len(widths)}, as block_out_channels")
    if not widths or any(width % math.lcm(4, groups) for width in widths):
        allowed = f"multiples of norm_num_groups ({groups}) and of 4"
        raise UserError(f"{where}: block_out_channels is {widths}; allowed: {allowed}")
    size, factor = own["sample_size"], 2 ** (len(widths) - 1)
    height, *width = [size] if isinstance(size, int) else size
    if height % factor or width not in ([], [height]):
        allowed = f"a multiple of {factor}, the number of levels being {len(widths)}, or the same twice"
        raise UserError(f"{where}: sample_size is {size}; allowed: {allowed}")
    return own | {"sample_size": height}


def with_outer_convolutions(weights: StateDict, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of an autoencoder with the 1x1 convolutions around its latents, as identities where it has none."""
    whole, channels = dict(weights), config["latent_channels"]
    for name, number in zip(CONVOLUTIONS, (2 * channels, channels), strict=True):
        if not config.get(f"use_{name}", True):
            whole[f"{name}.weight"] = torch.eye(number)[:, :, None, None]
            whole[f"{name}.bias"] = torch.zeros(number)
    return whole


def choices(kind: str, fields: Mapping[str, Any]) -> list[str]:
    """The overrides of a training config that are an autoencoder with these parameters."""
    preset = "vq_f4" if kind == VQ else "kl_f8"
    return [f"autoencoder={preset}", *settings("autoencoder", {**fields, "dropout": 0.0})]


def write_autoencoder(out: Path, network: Autoencoder, model: Model, record: Mapping[str, Any]) -> str:
    """Write an autoencoder as a folder of diffusers.

    Args:
        out: the folder; what it holds already is replaced file by file.
        network: ours.
        model: its parameters, see `renaming.Model`.
        record: plain values to be kept in langevin.json. The scaling of its "origin", see `LATENTS`, is kept in the
            config; where there is none, the scale is 1: a missing one is Stable Diffusion's in diffusers.

    Returns:
        the class of diffusers.

    Raises:
        UserError: when diffusers has no such thing; nothing is written then.
    """
    part, origin = part_of(network, model), record.get("origin")
    known = {name: FIELDS[part.kind][name] for name in LATENTS if name in FIELDS[part.kind]}
    said = {"scaling_factor": 1.0, **(origin if isinstance(origin, Mapping) else {})}
    scaling = completed("the run's origin", said, known)
    part._replace(config={**part.config, **scaling}).write(out)
    write_json(out / RECORD_FILE, record)
    return part.kind


def scaled_part(
    network: Autoencoder, model: Model, shift: Tensor, scale: Tensor, knows_factor: bool = True
) -> DiffusersPart:
    """An autoencoder of ours for the pipelines of diffusers that diffuse its latents ``(z - shift) / scale``.

    Most of these pipelines know one factor, and no shift. It is written as such, and anything else built into the
    weights.

    Args:
        network: ours.
        model: its parameters, see `renaming.Model`.
        shift: of its latents, (C, 1, 1).
        scale: likewise.
        knows_factor: whether the pipeline does.

    Raises:
        UserError: when diffusers has no such thing.
    """
    part, first = part_of(network, model), float(scale.flatten()[0])
    if not bool(shift.any()) and bool((scale == first).all()) and (knows_factor or first == 1):
        return part._replace(config={**part.config, "scaling_factor": 1 / first})
    if part.kind == VQ and not bool((scale == first).all()):
        raise UserError(
            "codec.scaling is channels; allowed: a model trained with global, or a number, for the codes of diffusers' "
            f"{VQ} are found by distances in which all channels count alike"
        )
    weights = fold(part.weights, shift, 1 / scale.double())
    return DiffusersPart(part.kind, {**part.config, "scaling_factor": 1.0}, weights)


def part_of(network: Autoencoder, model: Model) -> DiffusersPart:
    """An autoencoder of ours as diffusers has it.

    Raises:
        UserError: when it has none such.
    """
    kind = {KLAutoencoder: KL, VQAutoencoder: VQ}.get(type(network))
    if kind is None:
        raise UserError(f"autoencoder is {type(network).__name__}; allowed: KLAutoencoder or VQAutoencoder")
    widths = [model["channels"] * multiplier for multiplier in model["channel_multipliers"]]
    groups = sorted({normalization(width, groups=model["norm_groups"]).num_groups for width in widths})
    if len(groups) > 1:
        allowed = "the same number at every width in diffusers, which autoencoder.norm_groups is trained with"
        raise UserError(f"autoencoder.norm_groups is null, which are {groups} groups; allowed: {allowed}")
    if model["norm_epsilon"] != NORM_EPSILON:
        raise UserError(f"autoencoder.norm_epsilon is {model['norm_epsilon']}; allowed: {NORM_EPSILON} in diffusers")
    levels = len(widths)
    config = {
        "in_channels": network.in_channels,
        "out_channels": network.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": widths,
        "layers_per_block": model["blocks_per_level"],
        "act_fn": "silu",
        "latent_channels": model["latent_channels"],
        "norm_num_groups": groups[0],
        "sample_size": network.image_size,
        "mid_block_add_attention": model["middle_attention"],
        **({"num_vq_embeddings": model["num_codes"], "vq_embed_dim": None} if kind == VQ else {}),
    }
    return DiffusersPart(kind, config, to_diffusers(network.state_dict(), model))
