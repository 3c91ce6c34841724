"""A feature map as one vector."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.initialization import fan_average, zero


class AttentionPool(nn.Module):
    """The mean pixel attends to all pixels and itself, each with a learned embedding of its place.

    Source: CLIP (Radford et al. 2021), section 2.4, as ADM's classifier has it. Its result is zero at the start.

    Args:
        channels: C.
        heads: number of heads, a divisor of C.
        side: height and width of the feature map.
        out_channels: D, of the vector.
    """

    def __init__(self, channels: int, heads: int, side: int, out_channels: int) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Parameter(torch.randn(1 + side**2, channels) / channels**0.5)
        self.qkv = fan_average(nn.Linear(channels, 3 * channels))
        self.project = zero(nn.Linear(channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Pool features (B, C, H, W) to one vector, (B, C), which is yet to be projected by `project`."""
        pixels = x.flatten(2).transpose(1, 2)
        pixels = torch.cat([pixels.mean(1, keepdim=True), pixels], dim=1) + self.place.to(pixels.dtype)
        query, key, value = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query[:, :, :1], key, value)
        return attended.transpose(1, 2).flatten(1)
