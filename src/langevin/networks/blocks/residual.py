"""DDPM's residual block."""

from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.block import Block, normalization
from langevin.networks.initialization import fan_average, zero


class ResidualBlock(Block):
    """Two 3x3 convolutions behind GroupNorm and SiLU, the embedding added between them (DDPM, appendix B).

    Starts as its shortcut alone: the last convolution is zero.

    Args:
        in_channels: C, a multiple of 32.
        out_channels: C', a multiple of 32; where it differs from C the shortcut is a 1x1 convolution.
        embedding_channels: size of the embedding.
        dropout: probability in [0, 1) before the last convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = normalization(in_channels)
        self.conv1 = fan_average(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.embed = fan_average(nn.Linear(embedding_channels, out_channels))
        self.norm2 = normalization(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = fan_average(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map features (B, C, H, W) under an embedding (B, D) to (B, C', H, W)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.embed(functional.silu(embedding))[:, :, None, None]
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        return self.shortcut(x) + h
