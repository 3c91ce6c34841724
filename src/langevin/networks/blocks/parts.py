"""The blocks of a U-Net by its own choices, and the encoder that they make."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from langevin.networks.blocks.attention import SelfAttention, number_of_heads
from langevin.networks.blocks.block import Block, Chain
from langevin.networks.blocks.resample import BOX, Downsample, Filter, FilterDown, FilterUp, Upsample
from langevin.networks.blocks.residual import ResidualBlock
from langevin.networks.blocks.transformer import SpatialTransformer


@dataclass(frozen=True)
class BlockFactory:
    """Makes the blocks of one network. Its fields are described where a user chooses them, in `UNet`.

    Attributes:
        embedding_channels: size of the embedding that the residual blocks receive; None without one.
        token_channels: size of the tokens that the attentions receive; None without any.
    """

    embedding_channels: int | None
    dropout: float
    norm_epsilon: float
    heads: int | None
    head_channels: int | None
    scale_shift: bool
    residual_resampling: bool
    skip_rescale: bool = False
    symmetric_padding: bool = False
    resample_filter: Sequence[float] = BOX
    resample_projection: bool = False
    token_channels: int | None = None
    norm_groups: int | None = None
    transformer_depth: int = 0

    def residual(self, in_channels: int, out_channels: int, resample: Filter | None = None) -> Block:
        """A residual block."""
        return ResidualBlock(
            in_channels,
            out_channels,
            self.embedding_channels,
            self.dropout,
            self.norm_epsilon,
            self.scale_shift,
            self.skip_rescale,
            resample,
            self.resample_projection,
            self.norm_groups,
        )

    def attention(self, width: int) -> Block:
        """A self-attention, or a transformer."""
        heads = number_of_heads(width, self.heads, self.head_channels)
        if self.transformer_depth > 0:
            assert self.token_channels is not None
            depth, groups = self.transformer_depth, self.norm_groups
            return SpatialTransformer(width, heads, depth, self.token_channels, self.skip_rescale, groups)
        return SelfAttention(width, heads, self.norm_epsilon, self.skip_rescale, self.token_channels, self.norm_groups)

    def step(self, in_channels: int, out_channels: int, attend: bool) -> list[Block]:
        """A residual block and the attention that may follow it."""
        return [self.residual(in_channels, out_channels), *([self.attention(out_channels)] if attend else [])]

    def downsample(self, width: int) -> Block:
        """What halves the resolution."""
        if self.residual_resampling:
            return Chain(self.residual(width, width, FilterDown(self.resample_filter)))
        return Downsample(width, self.symmetric_padding)

    def upsample(self, width: int) -> Block:
        """What doubles the resolution."""
        if self.residual_resampling:
            return self.residual(width, width, FilterUp(self.resample_filter))
        return Upsample(width)

    def make_encoder(
        self, channels: int, widths: Sequence[int], attends: Sequence[bool], blocks_per_level: int
    ) -> tuple[nn.ModuleList, list[int]]:
        """The steps through all levels, a downsampling before each level but the first.

        Args:
            channels: width of the features that come in.
            widths: of each level.
            attends: whether attention follows each residual block of a level.
            blocks_per_level: residual blocks in each level.

        Returns:
            the steps, and the widths of the features that come in and of those after each step.
        """
        down, seen = nn.ModuleList(), [channels]
        for level, (width, attend) in enumerate(zip(widths, attends, strict=True)):
            if level > 0:
                down.append(self.downsample(seen[-1]))
                seen.append(seen[-1])
            for _ in range(blocks_per_level):
                down.append(Chain(*self.step(seen[-1], width, attend)))
                seen.append(width)
        return down, seen

    def middle(self, width: int, attend: bool = True) -> Block:
        """What the lowest level ends in: attention between two residual blocks, or one residual block."""
        blocks = [self.residual(width, width)]  # first, since weights are drawn in the order of construction
        if attend:
            blocks += [self.attention(width), self.residual(width, width)]
        return Chain(*blocks)
