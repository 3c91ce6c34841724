"""The block of EDM2's U-Net, in which every sum, product and activation keeps the magnitude of features."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.magnitudes import MPLayer, unit_magnitude
from langevin.networks.blocks.dropout import Dropout

SILU_MAGNITUDE = 0.596
"""Of SiLU of standard normal numbers."""
RESIDUAL_BALANCE = 0.3
"""How much a residual branch, or attention, counts beside what it is added to."""
LARGEST = 256.0
"""The greatest size of a block's features."""


def mp_silu(x: Tensor) -> Tensor:
    """SiLU, scaled (EDM2, equation 81)."""
    return functional.silu(x) / SILU_MAGNITUDE


def mp_sum(a: Tensor, b: Tensor, balance: float) -> Tensor:
    """The sum ``(1 - balance) a + balance b`` of two tensors of one shape, scaled (EDM2, equation 88)."""
    return a.lerp(b, balance) / math.hypot(1 - balance, balance)


def mp_cat(a: Tensor, b: Tensor) -> Tensor:
    """Concatenate the channels of features; both count the same, whatever their number (EDM2, equation 103).

    Args:
        a: (B, A, H, W).
        b: (B, C, H, W).

    Returns:
        (B, A + C, H, W).
    """
    half = (a.shape[1] + b.shape[1]) / 2
    return torch.cat((a * math.sqrt(half / a.shape[1]), b * math.sqrt(half / b.shape[1])), dim=1)


class MPBlock(nn.Module):
    """A residual block and the self-attention that may follow it, without normalization by the data's statistics.

    The embedding scales the branch by ``1 + gain * linear``, its gain starting at 0. In an encoder the features are
    first set to magnitude 1, pixel by pixel. Queries, keys and values are too (cosine attention).

    Source: EDM2 (Karras et al. 2024, arXiv 2312.02696), figure 21 and appendix B.

    Args:
        in_channels: C, those of skip connections included; where it differs from C' the shortcut is a 1x1 convolution.
        out_channels: C', a multiple of 4.
        embedding_channels: size of the embedding.
        encodes: whether it is a block of an encoder, or of a decoder.
        heads: attention heads, a divisor of C'; 0 for no attention.
        dropout: probability in [0, 1) before the last convolution.
        resample: changes the resolution before all else.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        *,
        encodes: bool,
        heads: int,
        dropout: float,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encodes = encodes
        self.heads = heads
        self.resample = nn.Identity() if resample is None else resample
        self.shortcut = nn.Identity() if in_channels == out_channels else MPLayer(in_channels, out_channels, 1)
        self.conv1 = MPLayer(out_channels if encodes else in_channels, out_channels, 3)
        self.embed = MPLayer(embedding_channels, out_channels)
        self.gain = nn.Parameter(torch.zeros(1))
        self.dropout = Dropout(dropout)
        self.conv2 = MPLayer(out_channels, out_channels, 3)
        self.qkv = MPLayer(out_channels, 3 * out_channels, 1) if heads else None
        self.project = MPLayer(out_channels, out_channels, 1) if heads else None

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map features to features.

        Args:
            x: (B, C, H, W), without those of `skip`.
            embedding: activated, (B, D).
            skip: features of the encoder, which are concatenated.

        Returns:
            (B, C', H', W').
        """
        x = self.resample(x if skip is None else mp_cat(x, skip))
        if self.encodes:
            x = unit_magnitude(self.shortcut(x), dim=1)
        scale = 1 + self.embed(embedding, self.gain)[:, :, None, None]
        branch = mp_silu(self.conv1(mp_silu(x)) * scale.to(x.dtype))
        branch = self.conv2(self.dropout(branch))
        x = mp_sum(x if self.encodes else self.shortcut(x), branch, RESIDUAL_BALANCE)
        if self.qkv is not None and self.project is not None:
            x = mp_sum(x, self.project(self.attended(self.qkv(x))), RESIDUAL_BALANCE)
        return x.clamp(-LARGEST, LARGEST)

    def attended(self, qkv: Tensor) -> Tensor:
        """What the pixels find, (B, C', H, W), given queries, keys and values, of one channel after the other."""
        size = qkv.shape[2:]
        parts = qkv.flatten(2).unflatten(1, (self.heads, -1, 3))  # (B, head, channel of the head, 3, pixel)
        query, key, value = unit_magnitude(parts, dim=2).transpose(2, 4).unbind(3)
        found = functional.scaled_dot_product_attention(query, key, value)
        return found.transpose(2, 3).flatten(1, 2).unflatten(2, size)
