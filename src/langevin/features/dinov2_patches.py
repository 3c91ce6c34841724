"""DINOv2's patch tokens."""

import textwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.errors import OptionError
from langevin.features.dinov2 import copy_of_code, load_network

PATCH = 14
"""The side of a patch, in pixels."""
PIXELS = 16
"""How many pixels of an image become the side of a patch: 256 become 224, as in REPA."""
LEAST = 16
"""The least number of patches along the shorter side: smaller images are enlarged to 224 pixels."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images in [0, 1]."""


class DINOv2Patches(nn.Module):
    """DINOv2's normalized patch tokens of images, as maps.

    Images in [-1, 1] are brought to [0, 1], grey ones repeated to three channels, normalized as ImageNet's images, and
    resized (bicubic, without antialiasing) to whole patches of 14 pixels: along the shorter side one for each 16 pixels
    of the image, at least 16, along the longer one as many more as keep the proportions. So 256 pixels become 224, and
    512 become 448, as in REPA (Yu et al. 2024, arXiv 2410.06940); smaller images are enlarged to 224. The embeddings of
    positions are interpolated to that grid by DINOv2's own code; REPA's code does it with antialiasing.

    Args:
        network: DINOv2, as torch hub gives it.

    Attributes:
        channels: of a token: 384 to 1536.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        with torch.no_grad():
            self.channels = self(torch.zeros(1, 3, LEAST, LEAST)).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """The tokens of images (B, 1 or 3, H, W) in [-1, 1]: maps (B, C', h, w)."""
        mean, deviation = (x.new_tensor(of).reshape(3, 1, 1) for of in (MEAN, DEVIATION))
        height, width = grid_of(x.shape[2], x.shape[3])
        x = functional.interpolate(((x + 1) / 2 - mean) / deviation, (PATCH * height, PATCH * width), mode="bicubic")
        tokens: Tensor = self.network.forward_features(x)["x_norm_patchtokens"]  # (B, h w, C'), row by row
        return tokens.mT.unflatten(2, (height, width))


def grid_of(height: int, width: int) -> tuple[int, int]:
    """How many patches an image has along its height and width."""
    shorter = min(height, width)
    along = max(LEAST, round(shorter / PIXELS))
    return round(along * height / shorter), round(along * width / shorter)


def load_patches(option: str, model: str) -> DINOv2Patches:
    """DINOv2's patch tokens, by torch hub.

    Args:
        option: what names the model, for messages.
        model: which one, see `DINOv2`.

    Raises:
        OptionError: when there is no such model, torch hub does not give it, or its code gives no patch tokens.
    """
    network = load_network(option, model).model
    try:
        return DINOv2Patches(network)
    except Exception as error:  # any code that lies where torch hub looks
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
        text = f"is {model}, whose code does not give patch tokens as DINOv2's does ({reason}); allowed: with"
        raise OptionError(option, f"{text} {copy_of_code()}") from error
