"""Folders as diffusers itself writes them."""

from pathlib import Path

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

BETAS = (torch.linspace(0.1, 0.9, 1000).double().square() * 0.03).tolist()
# Diffusers has 32 groups at every width, as we have from 128 channels on.
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (128,),
    "layers_per_block": 1,
    "down_block_types": ("AttnDownBlock2D",),
    "up_block_types": ("AttnUpBlock2D",),
}
TWO_LEVELS = {
    "block_out_channels": (128, 128),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def unet(**changes) -> UNet2DModel:
    """A small network of random weights, whose output has about unit variance."""
    torch.manual_seed(0)
    network = UNet2DModel(**UNET | changes)
    torch.nn.init.normal_(network.conv_out.weight, std=0.03)
    return network.eval()


def ddim_folder(folder: Path, network: UNet2DModel, **scheduler) -> DDIMPipeline:
    """Save a DDIMPipeline."""
    pipeline = DDIMPipeline(network, DDIMScheduler(**scheduler))
    pipeline.save_pretrained(folder)
    return pipeline


def ddpm_folder(folder: Path, network: UNet2DModel, **scheduler) -> DDPMPipeline:
    """Save a DDPMPipeline."""
    pipeline = DDPMPipeline(network, DDPMScheduler(**scheduler))
    pipeline.save_pretrained(folder)
    return pipeline
