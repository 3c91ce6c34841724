"""The layers of diffusers' U-Nets and those of ours, both ways."""

from collections.abc import Iterator, Mapping, Sequence

from langevin.interop.renaming import Model, Renaming

OUTER = {
    "conv_in": "first",
    "conv_norm_out": "norm",
    "conv_out": "last",
    "time_embedding.linear_1": "time.linear1",
    "time_embedding.linear_2": "time.linear2",
}
RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time_emb_proj": "embed",
    "norm2": "norm2",
    "conv2": "conv2",
    "conv_shortcut": "shortcut",
}
QKV = ("to_q", "to_k", "to_v")
Attention = Mapping[str, Sequence[str]]
"""The layers of an attention of ours, each with those of theirs that it is, one after the other."""
ATTENTION: Attention = {"qkv": QKV, "norm": ["group_norm"], "project": ["to_out.0"]}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The names that attention's layers once had."""


def to_ours(names: Renaming, model: Model, attention: Attention = ATTENTION) -> None:
    """Move the layers of diffusers' U-Net to those of ours.

    Args:
        names: the layers.
        model: the parameters of ours, see `renaming.Model`.
        attention: the layers of each attention; by the first it is seen whether there is one.

    Raises:
        UserError: when one is missing.
    """
    for theirs, ours in _layers(names, model, attention):
        if names.has(theirs) or theirs in OUTER:
            names.move(theirs, ours)
    _, mark = _marks(attention)
    for theirs, ours in _attentions(model):
        for layer, parts in attention.items() if names.has(f"{theirs}.{mark}") else ():
            names.join([f"{theirs}.{part}" for part in parts], f"{ours}.{layer}")


def to_theirs(names: Renaming, model: Model, attention: Attention = ATTENTION) -> None:
    """Move the layers of our U-Net to those of diffusers': the inverse of `to_ours`."""
    for theirs, ours in _layers(names, model, attention):
        if names.has(ours) or theirs in OUTER:
            names.move(ours, theirs)
    mark, _ = _marks(attention)
    for theirs, ours in _attentions(model):
        for layer, parts in attention.items() if names.has(f"{ours}.{mark}") else ():
            names.split(f"{ours}.{layer}", [f"{theirs}.{part}" for part in parts])


def today(name: str) -> str:
    """A weight's name in today's diffusers."""
    block, _, rest = name.rpartition(".attentions.")
    place, _, layer = rest.partition(".")
    layer, _, kind = layer.rpartition(".")
    return f"{block}.attentions.{place}.{OLD_ATTENTION.get(layer, layer)}.{kind}" if block else name


def _steps(model: Model) -> Iterator[tuple[str, str, str, str]]:
    """Each residual block and the attention that may follow it: theirs, ours; theirs, ours."""
    levels, blocks = len(model["channel_multipliers"]), model["blocks_per_level"]
    for part, each, between in (("down", blocks, 1), ("up", blocks + 1, 0)):
        for level in range(levels):
            theirs = f"{part}_blocks.{level}"
            for step in range(each):
                ours = f"{part}.{level * (each + between) + step}.blocks"
                yield f"{theirs}.resnets.{step}", f"{ours}.0", f"{theirs}.attentions.{step}", f"{ours}.1"
    yield "mid_block.resnets.0", "middle.blocks.0", "mid_block.attentions.0", "middle.blocks.1"
    yield "mid_block.resnets.1", "middle.blocks.2", "", ""


def _attentions(model: Model) -> Iterator[tuple[str, str]]:
    """Each attention that may be there: theirs, ours."""
    yield from ((theirs, ours) for _, _, theirs, ours in _steps(model) if theirs)


def _layers(names: Renaming, model: Model, attention: Attention) -> Iterator[tuple[str, str]]:
    """Every layer outside of attention that may be there: theirs, ours."""
    yield from OUTER.items()
    for their_residual, our_residual, _, _ in _steps(model):
        for theirs, ours in RESIDUAL.items():
            yield f"{their_residual}.{theirs}", f"{our_residual}.{ours}"
    our_mark, their_mark = _marks(attention)
    each = model["blocks_per_level"] + 1
    inside = model.get("residual_resampling", False)
    for level in range(len(model["channel_multipliers"]) - 1):
        last = (level + 1) * each - 1
        attends = names.has(f"up_blocks.{level}.attentions.0.{their_mark}")
        attends = attends or names.has(f"up.{last}.blocks.1.{our_mark}")
        down, up = f"down.{last}" + ".blocks.0" * inside, f"up.{last}.blocks.{1 + attends}"
        for theirs, ours in (RESIDUAL if inside else {"conv": "conv"}).items():
            yield f"down_blocks.{level}.downsamplers.0.{theirs}", f"{down}.{ours}"
            yield f"up_blocks.{level}.upsamplers.0.{theirs}", f"{up}.{ours}"


def _marks(attention: Attention) -> tuple[str, str]:
    """The layer by which an attention is found: ours, theirs."""
    ours, (theirs, *_) = next(iter(attention.items()))
    return ours, theirs
