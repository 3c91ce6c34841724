"""The U-Net of DDPM (Ho, Jain & Abbeel 2020, appendix B)."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.networks.blocks.attention import SelfAttention
from langevin.networks.blocks.block import NORM_GROUPS, Block, Chain, normalization
from langevin.networks.blocks.resample import Downsample, Upsample
from langevin.networks.blocks.residual import ResidualBlock
from langevin.networks.condition import Condition
from langevin.networks.embeddings import TimeEmbedding
from langevin.networks.initialization import fan_average, zero
from langevin.networks.network import Network


class UNet(Network):
    """Down through the resolutions and up again, each step up seeing what the matching step down saw.

    Each level halves the resolution of the one above it. The lowest is followed by a residual block, self-attention and
    a residual block, whatever `attention_resolutions` says.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output: more than `in_channels` where a variance is learned.
        image_size: height and width of the image, divisible by 2 ** (number of levels - 1). It places the attention.
        condition: builds the condition's embedding, called with `dim=`; None for an unconditional network.
        channels: width of the first level, a multiple of 32 (the groups of GroupNorm).
        channel_multipliers: width of each level as a multiple of `channels`; its length is the number of levels.
        blocks_per_level: residual blocks in each level on the way down; one more on the way up.
        attention_resolutions: heights of feature maps where self-attention follows each residual block. Some may not
            occur at this image size, so that one preset serves several sizes.
        head_channels: width of one attention head, a divisor of every width that attends; None for a single head.
        dropout: probability in [0, 1) inside the residual blocks.

    Raises:
        UserError: on the first mistake that `check` finds.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_size: int,
        condition: Callable[..., Condition] | None,
        channels: int,
        channel_multipliers: list[int],
        blocks_per_level: int,
        attention_resolutions: list[int],
        head_channels: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.require(
            image_size=image_size,
            channels=channels,
            channel_multipliers=channel_multipliers,
            blocks_per_level=blocks_per_level,
            attention_resolutions=attention_resolutions,
            head_channels=head_channels,
            dropout=dropout,
        )
        widths = [channels * multiplier for multiplier in channel_multipliers]
        attends = [image_size // 2**level in attention_resolutions for level in range(len(widths))]
        embedding_channels = 4 * channels

        def residual(width_in: int, width_out: int) -> Block:
            return ResidualBlock(width_in, width_out, embedding_channels, dropout)

        def attention(width: int) -> Block:
            return SelfAttention(width, heads=width // (head_channels or width))

        def step(width_in: int, width_out: int, attend: bool) -> list[Block]:
            return [residual(width_in, width_out), *([attention(width_out)] if attend else [])]

        self.time = TimeEmbedding(channels, embedding_channels)
        self.condition = None if condition is None else condition(dim=embedding_channels)
        self.first = fan_average(nn.Conv2d(in_channels, channels, 3, padding=1))

        self.down = nn.ModuleList()
        width, skips = channels, [channels]  # of the feature map at hand, and of all those the way up will see
        for level, (level_width, attend) in enumerate(zip(widths, attends, strict=True)):
            if level > 0:
                self.down.append(Downsample(width))
                skips.append(width)
            for _ in range(blocks_per_level):
                self.down.append(Chain(*step(width, level_width, attend)))
                width = level_width
                skips.append(width)

        self.middle = Chain(residual(width, width), attention(width), residual(width, width))

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for remaining in reversed(range(blocks_per_level + 1)):
                blocks = step(width + skips.pop(), widths[level], attends[level])
                width = widths[level]
                if level > 0 and remaining == 0:
                    blocks.append(Upsample(width))
                self.up.append(Chain(*blocks))

        self.norm = normalization(width)
        self.last = zero(nn.Conv2d(width, out_channels, 3, padding=1))
        # Convolutions are faster with the channels innermost, on the CPU and on the tensor cores of a GPU.
        self.to(memory_format=torch.channels_last)

    @classmethod
    def check(
        cls,
        *,
        image_size: int,
        channels: int,
        channel_multipliers: Sequence[int],
        blocks_per_level: int,
        attention_resolutions: Sequence[int],
        head_channels: int | None,
        dropout: float,
    ) -> list[tuple[str, str]]:
        """List every mistake in the parameters; see `Checked.check`."""
        mistakes = []
        multipliers, attending = list(channel_multipliers), list(attention_resolutions)
        if channels < 1 or channels % NORM_GROUPS:
            allowed = f"a positive multiple of {NORM_GROUPS}, the groups of GroupNorm"
            mistakes.append(("channels", f"{channels} does not split into groups: {allowed}"))
        if blocks_per_level < 1:
            mistakes.append(("blocks_per_level", f"{blocks_per_level} is too few: at least 1"))
        if not 0 <= dropout < 1:
            mistakes.append(("dropout", f"{dropout} is no probability of dropping: from 0 to below 1"))

        if not multipliers or min(multipliers) < 1:
            mistakes.append(
                ("channel_multipliers", f"{multipliers} are no levels: one positive integer for each level")
            )
            return mistakes  # what follows speaks of the levels

        lowest = len(multipliers) - 1
        resolutions = [image_size // 2**level for level in range(lowest + 1)]
        if image_size < 1 or image_size % 2**lowest:
            allowed = f"image sizes divisible by {2**lowest}, or fewer levels"
            mistakes.append(
                ("channel_multipliers", f"{multipliers} halve an image of size {image_size} {lowest} times: {allowed}")
            )

        if head_channels is not None:
            attend = [resolution in (*attending, resolutions[-1]) for resolution in resolutions]
            widths = [channels * multiplier for multiplier, here in zip(multipliers, attend, strict=True) if here]
            if head_channels < 1 or any(width % head_channels for width in widths):
                allowed = "a divisor of each, or null for a single head"
                mistakes.append(("head_channels", f"{head_channels} does not divide the widths {widths}: {allowed}"))
        return mistakes

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network; see `Network.forward`. Height and width are those given as `image_size`."""
        embedding = self.time(c_noise)
        if self.condition is not None:
            embedding = embedding + self.condition(cond, len(x))

        x = self.first(x.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for block in self.down:
            x = block(x, embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for block in self.up:
            x = block(torch.cat((x, skips.pop()), dim=1), embedding)
        # The layout is nobody else's business: the result is in the usual one.
        return self.last(functional.silu(self.norm(x))).contiguous()
