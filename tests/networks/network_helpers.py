"""Networks for tests."""

from pathlib import Path

import torch
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import nn

from langevin.networks.network import Network
from langevin.networks.unet import UNet

CONF = Path(__file__).parents[2] / "conf"

TINY = {
    "channels": 32,
    "channel_multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [4],
    "head_channels": None,
    "dropout": 0.0,
}
"""A U-Net's own parameters, for images of size 8."""


def tiny(**changes) -> UNet:
    facts = {"in_channels": 2, "out_channels": 2, "image_size": 8, "condition": None}
    return UNet(**(facts | TINY | changes))


def preset(name: str) -> tuple[type[Network], dict]:
    """Read conf/model/`name`.yaml: the class and its own parameters."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{name}.yaml"))
    return get_class(node.pop("_target_")), node


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> None:
    """Fill every parameter at random so that signals keep their size: nothing stays zero or one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.normal_("norm" in name and name.endswith("weight"), 0.1, generator=generator)
