"""Weights and configs of DiT: diffusers' `DiTTransformer2DModel`, both ways, and the released code's, read.

Theirs differ from ours where an option says so: in diffusers the time's frequencies end with 1/10000 itself
(`time_endpoint`), and its `norm_eps` is the epsilon of one normalization (`mlp_norm_epsilon`). Else all three are one
function. In diffusers each block holds the embedding of time and label, which is one in the others.
"""

from collections.abc import Mapping
from typing import Any

import torch

from langevin.errors import UserError
from langevin.interop.diffusers import Known, completed, refuse_unknown, unfit
from langevin.interop.imported import Imported
from langevin.interop.renaming import Model, Renaming, StateDict, settings
from langevin.networks.dit import NORM_EPSILON, position_embedding

OUTER = {"pos_embed.proj": "patches", "proj_out_1": "modulation", "proj_out_2": "last"}
EMBEDDING = {"timestep_embedder.linear_1": "time.0", "timestep_embedder.linear_2": "time.2"}
TABLE = ("class_embedder.embedding_table.weight", "condition.table.weight")
BLOCK = {
    "norm1.linear": "modulation",
    "attn1.to_out.0": "project",
    "ff.net.0.proj": "mlp.0",
    "ff.net.2": "mlp.2",
}
QKV = ("to_q", "to_k", "to_v")
ORIGIN = "diffusers' DiTTransformer2DModel"

RELEASED = {
    "x_embedder.proj": "patches",
    "t_embedder.mlp.0": "time.0",
    "t_embedder.mlp.2": "time.2",
    "final_layer.adaLN_modulation.1": "modulation",
    "final_layer.linear": "last",
}
RELEASED_BLOCK = {
    "adaLN_modulation.1": "modulation",
    "attn.qkv": "qkv",
    "attn.proj": "project",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
RELEASED_TABLE = "y_embedder.embedding_table.weight"
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""The number of heads by the width, which the weights do not show: table 1 of the paper."""

TRANSFORMER: Known = {
    "num_attention_heads": (16, "Annotated[int, Ge(1)]"),
    "attention_head_dim": (72, "Annotated[int, Ge(1)]"),
    "in_channels": (4, "Annotated[int, Ge(1)]"),
    "out_channels": (None, "Annotated[int, Ge(1)] | None"),
    "num_layers": (28, "Annotated[int, Ge(1)]"),
    "dropout": (0.0, "Literal[0, 0.0]"),
    "norm_num_groups": (32, "int"),
    "attention_bias": (True, "Literal[True]"),
    "sample_size": (32, "Annotated[int, Ge(1)]"),
    "patch_size": (2, "Annotated[int, Ge(1)]"),
    "activation_fn": ("gelu-approximate", "Literal['gelu-approximate']"),
    "num_embeds_ada_norm": (1000, "Annotated[int, Ge(1)]"),
    "upcast_attention": (False, "bool"),
    "norm_type": ("ada_norm_zero", "Literal['ada_norm_zero']"),
    "norm_elementwise_affine": (False, "Literal[False]"),
    "norm_eps": (1e-5, "Annotated[float, Gt(0)]"),
}


def dit_of(where: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the `DiT` of ours that is a `DiTTransformer2DModel`: see `transformer_config`.

    Args:
        where: the config's place, for messages.
        config: its arguments; those that are missing are diffusers' defaults.

    Raises:
        UserError: when ours has no such part.
    """
    refuse_unknown(where, config, TRANSFORMER, idle=(None, False))
    own = completed(where, config, TRANSFORMER)
    width = own["num_attention_heads"] * own["attention_head_dim"]
    if width % 4:
        allowed = "such that num_attention_heads times it is a multiple of 4"
        raise unfit(where, "attention_head_dim", own["attention_head_dim"], allowed)
    if own["sample_size"] % own["patch_size"]:
        raise unfit(where, "patch_size", own["patch_size"], f"a divisor of sample_size, {own['sample_size']}")
    return {
        "patch_size": own["patch_size"],
        "width": width,
        "depth": own["num_layers"],
        "heads": own["num_attention_heads"],
        "checkpointing": False,
        "time_endpoint": True,
        "mlp_norm_epsilon": own["norm_eps"],
    }


def from_diffusers_dit(state_dict: StateDict, model: Model) -> dict[str, torch.Tensor]:
    """Give the weights of a `DiTTransformer2DModel` the names they have in our `DiT`.

    Args:
        state_dict: of theirs.
        model: the parameters of ours, see `renaming.Model`.

    Raises:
        UserError: when a weight is missing or unknown, or the blocks' embeddings of time and label differ, of which
            ours has one.
    """
    names = Renaming(state_dict, ORIGIN)
    for theirs, ours in OUTER.items():
        names.move(theirs, ours)
    for index in range(model["depth"]):
        old, new = f"transformer_blocks.{index}", f"blocks.{index}"
        for theirs, ours in BLOCK.items():
            names.move(f"{old}.{theirs}", f"{new}.{ours}")
        for kind in ("weight", "bias"):
            parts = [names.take(f"{old}.attn1.{part}.{kind}") for part in QKV]
            names.result[f"{new}.qkv.{kind}"] = torch.cat(parts)
        for theirs, ours in _embedding():
            tensor = names.take(f"{old}.norm1.emb.{theirs}")
            if not torch.equal(names.result.setdefault(ours, tensor), tensor):
                raise UserError(
                    f"weights: '{old}.norm1.emb.{theirs}' differs from that of block 0; allowed: one embedding of time "
                    "and label in all blocks, as DiT's published weights have it"
                )
    return names.finished()


def to_diffusers_dit(state_dict: StateDict, model: Model) -> dict[str, torch.Tensor]:
    """Give the weights of our `DiT` the names they have in a `DiTTransformer2DModel`: see `from_diffusers_dit`.

    Args:
        state_dict: of ours; its condition is a `ClassLabel`.
        model: its parameters, see `renaming.Model`.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming(state_dict, f"a class-conditional DiT that {ORIGIN} can hold")
    embedding = {theirs: names.take(ours) for theirs, ours in _embedding()}
    for theirs, ours in OUTER.items():
        names.move(ours, theirs)
    for index in range(model["depth"]):
        old, new = f"blocks.{index}", f"transformer_blocks.{index}"
        for theirs, ours in BLOCK.items():
            names.move(f"{old}.{ours}", f"{new}.{theirs}")
        for kind in ("weight", "bias"):
            parts = names.take(f"{old}.qkv.{kind}").chunk(3)
            for part, tensor in zip(QKV, parts, strict=True):
                names.result[f"{new}.attn1.{part}.{kind}"] = tensor.clone()  # no file holds views of one tensor
        for theirs, tensor in embedding.items():
            names.result[f"{new}.norm1.emb.{theirs}"] = tensor.clone()
    return names.finished()


def transformer_config(
    model: Model, in_channels: int, out_channels: int, image_size: int, num_classes: int | None
) -> dict[str, Any]:
    """The arguments of the `DiTTransformer2DModel` that `to_diffusers_dit` fills.

    Args:
        model: the parameters of our `DiT`, see `renaming.Model`.
        in_channels: of the image.
        out_channels: of the output.
        image_size: height and width of the image.
        num_classes: of a `ClassLabel`, whose "no label" is theirs; None without labels.

    Raises:
        UserError: when theirs cannot be the same function.
    """
    if num_classes is None:
        raise UserError(f"conditions are without class_label; allowed: [class_label], for {ORIGIN} always has classes")
    if not model.get("time_endpoint", False):
        raise UserError(
            "model.time_endpoint is false; allowed: a model trained with true, for the time's frequencies of "
            f"{ORIGIN} end with 1/10000"
        )
    if model.get("cross_attention", False):
        raise UserError(f"model.cross_attention is true; allowed: false, for {ORIGIN} attends to no tokens")
    return {
        "num_attention_heads": model["heads"],
        "attention_head_dim": model["width"] // model["heads"],
        "in_channels": in_channels,
        "out_channels": out_channels,
        "num_layers": model["depth"],
        "sample_size": image_size,
        "patch_size": model["patch_size"],
        "num_embeds_ada_norm": num_classes,
        "norm_eps": model.get("mlp_norm_epsilon", NORM_EPSILON),
        "dropout": 0.0,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
    }


def read_released_dit(state_dict: StateDict) -> Imported:
    """Read the weights of the paper's released code, such as those it publishes.

    They are of 1000 steps of the linear schedule, predict eps, and have learned "no label" as the last class.

    Raises:
        UserError: when a weight is missing or unknown, or the width is none of the paper's.
    """
    names = Renaming(state_dict, "the released code's DiT")
    width, channels, patch_size, _ = names.take("x_embedder.proj.weight").shape
    positions = names.take("pos_embed")[0]
    side, depth = (
        round(len(positions) ** 0.5),
        sum(names.has(f"blocks.{index}.attn.qkv") for index in range(len(names.rest))),
    )
    if width not in HEADS:
        widths = ", ".join(map(str, HEADS))
        raise UserError(f"weights: the patches are {width} wide; allowed: {widths}, whose number of heads is known")
    if not torch.allclose(positions.float(), position_embedding(side, width), atol=1e-4):
        raise UserError("weights: 'pos_embed' is not the sines and cosines of a square; allowed: those of DiT")
    learned = len(names.take("final_layer.linear.bias")) == 2 * channels * patch_size**2
    model = {"patch_size": patch_size, "width": width, "depth": depth, "heads": HEADS[width], "checkpointing": False}
    return Imported(
        overrides=[
            "model=dit_b",
            *settings("model", model),
            "conditions=[class_label]",
            "schedule=linear",
            *settings("schedule", {"num_steps": 1000}),
            "parameterization=eps",
            f"variance={'learned_range' if learned else 'fixed_large'}",
        ],
        channels=channels,
        image_size=side * patch_size,
        num_classes=len(names.take(RELEASED_TABLE)) - 1,
        weights=lambda model: from_released(state_dict, model),
    )


def from_released(state_dict: StateDict, model: Model) -> dict[str, torch.Tensor]:
    """Give the weights of the released code's DiT the names they have in our `DiT`.

    Args:
        state_dict: of theirs.
        model: the parameters of ours, see `renaming.Model`.

    Raises:
        UserError: when a weight is missing or unknown.
    """
    names = Renaming(state_dict, "the released code's DiT")
    names.take("pos_embed")  # ours follows from the sizes
    names.result[TABLE[1]] = names.take(RELEASED_TABLE)
    for theirs, ours in RELEASED.items():
        names.move(theirs, ours)
    for index in range(model["depth"]):
        for theirs, ours in RELEASED_BLOCK.items():
            names.move(f"blocks.{index}.{theirs}", f"blocks.{index}.{ours}")
    return {name: tensor.float() for name, tensor in names.finished().items()}


def _embedding() -> list[tuple[str, str]]:
    """The tensors of the embedding of time and label: theirs within a block, and ours."""
    layers = [
        (f"{theirs}.{kind}", f"{ours}.{kind}") for theirs, ours in EMBEDDING.items() for kind in ("weight", "bias")
    ]
    return [*layers, TABLE]
