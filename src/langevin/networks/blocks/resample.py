"""Changes of resolution: by one convolution each, as in DDPM, or by a fixed filter, as within residual blocks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import Block
from langevin.networks.initialization import fan_average

BOX = (1, 1)
"""The taps that take the mean of neighbours, or repeat them."""


class Downsample(Block):
    """Halve height and width by a 3x3 convolution of stride 2. Only the features are used.

    Args:
        channels: C, kept.
        symmetric_padding: whether a border of zeros goes around the whole map, as in OpenAI's networks; else a row
            below and a column to the right: what TensorFlow's SAME does, in which DDPM was trained.
    """

    def __init__(self, channels: int, symmetric_padding: bool = False) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if symmetric_padding else (0, 1, 0, 1)
        self.conv = fan_average(nn.Conv2d(channels, channels, 3, stride=2))

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features (B, C, H, W), H and W even, to (B, C, H / 2, W / 2)."""
        return self.conv(functional.pad(x, self.padding))


class Upsample(Block):
    """Double height and width by repeating pixels, then a 3x3 convolution. Only the features are used.

    Both together are one transposed convolution of 4x4 taps, of which a pixel meets 2x2: 4/9 of the products. A CPU
    gains by that where the map is large enough to outweigh the sums of the taps; on GPUs it has not been measured.

    Args:
        channels: C, kept.
    """

    SMALLEST = 8
    """Height and width from which on the transposed convolution is the faster one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = fan_average(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, tokens: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map features (B, C, H, W) to (B, C, 2 H, 2 W)."""
        # Around an adapted convolution there is a layer that has more weights than the convolution's.
        if x.device.type != "cpu" or min(x.shape[2:]) < self.SMALLEST or not isinstance(self.conv, nn.Conv2d):
            return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))
        # A pixel and its copy meet neighbouring taps of the 3x3: each tap is added to the one before it.
        taps = functional.pad(self.conv.weight.transpose(0, 1).flip(2, 3), (1, 1, 1, 1))
        taps = taps[:, :, 1:] + taps[:, :, :-1]
        taps = taps[..., 1:] + taps[..., :-1]
        return functional.conv_transpose2d(x, taps, self.conv.bias, stride=2, padding=1)


class Filter(nn.Module):
    """A change of resolution by a fixed separable filter, channel by channel, with zero padding.

    [1, 1] is the box: the mean of four pixels when downsampling, each pixel four times when upsampling (BigGAN, ADM).
    [1, 3, 3, 1] is smoother and keeps down aliasing (NCSN++, after Zhang 2019 and StyleGAN2).

    Args:
        taps: the filter in one dimension, an even number of taps with a positive sum; scaled here to keep the mean.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        # On the CPU: on the device "meta", where configs are checked, the product imports torch's compiler.
        row = torch.tensor(taps, dtype=torch.float32, device="cpu")
        # It follows from the config, so that no checkpoint need hold it.
        self.register_buffer("kernel", torch.outer(row, row) / row.sum() ** 2, persistent=False)
        self.padding = len(taps) // 2 - 1
        self.is_box = len(taps) == 2 and taps[0] == taps[1]

    def weight(self, x: Tensor) -> Tensor:
        """The filter as the weight of a convolution of the C channels of `x` in C groups."""
        return self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)


class FilterDown(Filter):
    """Filter and take every second pixel of every second row."""

    def forward(self, x: Tensor, padded: bool = False) -> Tensor:
        """Map features (B, C, H, W), H and W even, to (B, C, H / 2, W / 2).

        Args:
            x: the features.
            padded: whether `x` has `self.padding` pixels on every side that do not count in H and W.
        """
        if self.is_box:  # the same, and faster
            return functional.avg_pool2d(x, 2)
        return functional.conv2d(x, self.weight(x), stride=2, padding=0 if padded else self.padding, groups=x.shape[1])


class FilterUp(Filter):
    """Put zeros between the pixels and filter, four times as strongly."""

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to (B, C, 2 H, 2 W)."""
        if self.is_box:  # the same, and faster
            # On a GPU autocast makes float32 of it, which EDM2's sums do not take beside their branch.
            return functional.interpolate(x, scale_factor=2, mode="nearest").to(x.dtype)
        return functional.conv_transpose2d(x, 4 * self.weight(x), stride=2, padding=self.padding, groups=x.shape[1])
