"""DDPM's changes of resolution: one convolution each."""

from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import Block
from langevin.networks.initialization import fan_average


class Downsample(Block):
    """Halve height and width by a 3x3 convolution of stride 2. The embedding is not used.

    Args:
        channels: C, kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = fan_average(nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map features (B, C, H, W), H and W even, to (B, C, H / 2, W / 2)."""
        # One row below and one column to the right: what TensorFlow's SAME does, in which DDPM was trained.
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Upsample(Block):
    """Double height and width by repeating pixels, then a 3x3 convolution. The embedding is not used.

    Args:
        channels: C, kept.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = fan_average(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map features (B, C, H, W) to (B, C, 2 H, 2 W)."""
        return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))
