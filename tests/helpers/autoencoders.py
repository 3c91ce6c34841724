"""Autoencoders as diffusers and CompVis' code save them."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor

KINDS = {"kl": AutoencoderKL, "vq": VQModel}
TINY = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 16,
}
STABLE_DIFFUSION = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
"""The whole config.json of Stable Diffusion 1.x's vae/."""


def autoencoder(kind: str, **changes) -> AutoencoderKL | VQModel:
    """A small one of random weights."""
    torch.manual_seed(0)
    network = KINDS[kind](**TINY | ({"num_vq_embeddings": 40} if kind == "vq" else {}) | changes)
    # Codes that lie among the latents, so that many of them are the nearest of some.
    if kind == "vq":
        torch.nn.init.normal_(network.quantize.embedding.weight, std=0.3)
    return network.eval()


def compvis_state(
    in_channels: int = 3, width: int = 32, multipliers=(1, 2, 4), blocks: int = 2, latents: int = 3, codes: int = 0
) -> dict[str, Tensor]:
    """Names and shapes of CompVis' AutoencoderKL, or with `codes` VQModel, written down from its source; random."""
    state: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def layer(name: str, out: int, *shape: int) -> None:
        scale = torch.tensor([out, *shape][1:] or [25.0]).prod() ** -0.5
        state[f"{name}.weight"] = torch.randn(out, *shape, generator=generator) * scale + (not shape)
        state[f"{name}.bias"] = torch.randn(out, generator=generator) / 10

    def residual(name: str, into: int, out: int) -> None:
        layer(f"{name}.norm1", into)
        layer(f"{name}.conv1", out, into, 3, 3)
        layer(f"{name}.norm2", out)
        layer(f"{name}.conv2", out, out, 3, 3)
        if into != out:
            layer(f"{name}.nin_shortcut", out, into, 1, 1)

    def middle(name: str, wide: int) -> None:
        residual(f"{name}.block_1", wide, wide)
        layer(f"{name}.attn_1.norm", wide)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.attn_1.{part}", wide, wide, 1, 1)
        residual(f"{name}.block_2", wide, wide)

    widths = [width * multiplier for multiplier in multipliers]
    moments = latents if codes else 2 * latents
    layer("encoder.conv_in", width, in_channels, 3, 3)
    before = width
    for level, wide in enumerate(widths):
        for block in range(blocks):
            residual(f"encoder.down.{level}.block.{block}", before, wide)
            before = wide
        if level < len(widths) - 1:
            layer(f"encoder.down.{level}.downsample.conv", wide, wide, 3, 3)
    middle("encoder.mid", before)
    layer("encoder.norm_out", before)
    layer("encoder.conv_out", moments, before, 3, 3)
    layer("decoder.conv_in", before, latents, 3, 3)
    middle("decoder.mid", before)
    for level in reversed(range(len(widths))):
        for block in range(blocks + 1):
            residual(f"decoder.up.{level}.block.{block}", before, widths[level])
            before = widths[level]
        if level > 0:
            layer(f"decoder.up.{level}.upsample.conv", before, before, 3, 3)
    layer("decoder.norm_out", before)
    layer("decoder.conv_out", in_channels, before, 3, 3)
    layer("quant_conv", moments, moments, 1, 1)
    layer("post_quant_conv", latents, latents, 1, 1)
    if codes:
        state["quantize.embedding.weight"] = torch.randn(codes, latents, generator=generator) / 3
    return state


def save(folder: Path, kind: str, **changes) -> AutoencoderKL | VQModel:
    """Save a folder of diffusers."""
    network = autoencoder(kind, **changes)
    network.save_pretrained(folder)
    return network
