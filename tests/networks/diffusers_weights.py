"""Weights of diffusers' UNet2DModel under the names of our UNet."""

import torch
from diffusers import UNet2DModel
from torch import Tensor

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


def convert(model: UNet2DModel) -> dict[str, Tensor]:
    """Rename every weight; query, key and value become the three thirds of one matrix."""
    theirs = dict(model.state_dict())
    ours: dict[str, Tensor] = {}

    def move(source: str, target: str) -> None:
        for kind in ("weight", "bias"):
            ours[f"{target}.{kind}"] = theirs.pop(f"{source}.{kind}")

    def residual(source: str, target: str) -> None:
        for old, new in RESIDUAL.items():
            if f"{source}.{old}.weight" in theirs:
                move(f"{source}.{old}", f"{target}.{new}")

    def attention(source: str, target: str) -> None:
        move(f"{source}.group_norm", f"{target}.norm")
        move(f"{source}.to_out.0", f"{target}.project")
        for kind in ("weight", "bias"):
            parts = [theirs.pop(f"{source}.to_{part}.{kind}") for part in "qkv"]
            ours[f"{target}.qkv.{kind}"] = torch.cat(parts)

    def steps(source: str, target: str, index: int) -> int:
        """Move a level's residual blocks and attentions; give the index after them."""
        count = len({name.split(".")[3] for name in theirs if name.startswith(f"{source}.resnets.")})
        for step in range(count):
            residual(f"{source}.resnets.{step}", f"{target}.{index}.blocks.0")
            if f"{source}.attentions.{step}.to_q.weight" in theirs:
                attention(f"{source}.attentions.{step}", f"{target}.{index}.blocks.1")
            index += 1
        return index

    for old, new in OUTER.items():
        move(old, new)
    levels = len(model.down_blocks)
    index = 0
    for level in range(levels):
        index = steps(f"down_blocks.{level}", "down", index)
        if level < levels - 1:
            move(f"down_blocks.{level}.downsamplers.0.conv", f"down.{index}.conv")
            index += 1
    residual("mid_block.resnets.0", "middle.blocks.0")
    attention("mid_block.attentions.0", "middle.blocks.1")
    residual("mid_block.resnets.1", "middle.blocks.2")
    index = 0
    for level in range(levels):
        attends = f"up_blocks.{level}.attentions.0.to_q.weight" in theirs
        index = steps(f"up_blocks.{level}", "up", index)
        if level < levels - 1:
            move(f"up_blocks.{level}.upsamplers.0.conv", f"up.{index - 1}.blocks.{1 + attends}.conv")
    assert not theirs, theirs.keys()
    return ours
