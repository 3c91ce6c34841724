"""EDM2's U-Net (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models")."""

from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from langevin.conditions.condition import Condition
from langevin.errors import refuse
from langevin.magnitudes import MPFourier, MPLayer, unit_magnitude
from langevin.networks.blocks.attention import number_of_heads
from langevin.networks.blocks.magnitude import MPBlock, mp_silu, mp_sum
from langevin.networks.blocks.resample import BOX, FilterDown, FilterUp
from langevin.networks.network import Network
from langevin.networks.unet import heads_mistakes, multipliers_mistakes
from langevin.taps import Tap, numbered

LABEL_BALANCE = 0.5
"""How much the condition counts beside the noise level."""


class EDM2UNet(Network):
    """A U-Net that keeps the magnitude of features at 1 by design: no biases, and all weights count by direction alone.

    In training, `langevin.magnitudes.force_magnitudes` sets the weights to magnitude 1 before every step, so that the
    learning rate alone decides how fast they turn; it may be large (0.01), and should fall. The output starts at 0.

    The noise level enters by random Fourier features, which are made for numbers of the size of a logarithm:
    `parameterization=edm`. The condition's vector, of which only the direction counts, is added to them. EDM2's label
    embedding is the table of these vectors, but that each of its rows, not each of its columns, has magnitude 1.

    Source: EDM2 (arXiv 2312.02696), figure 21, configuration G.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output: more than `in_channels` where a variance is learned.
        image_size: height and width of the image, divisible by 2 ** (number of levels - 1).
        condition: builds the condition's embedding, called with `dim=`; None for an unconditional network.
        channels: width of the first convolution, a multiple of 4.
        channel_multipliers: width of each level as a multiple of `channels`.
        blocks_per_level: residual blocks in each level of the encoder; the decoder has one more.
        attention_resolutions: heights of feature maps where self-attention follows each residual block.
        head_channels: width of one attention head, a divisor of every width that attends, the last level's among them;
            None for a single head.
        dropout: probability in [0, 1) inside the residual blocks.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

    own_channels = 1  # ones, in place of biases
    default_tap = "middle"

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_size: int,
        condition: Callable[..., Condition] | None = None,
        channels: int,
        channel_multipliers: list[int],
        blocks_per_level: Annotated[int, Ge(1)],
        attention_resolutions: list[int],
        head_channels: int | None = 64,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in channel_multipliers]
        attends = [image_size // 2**level in attention_resolutions for level in range(len(widths))]
        wrong = []
        if channels < 4 or channels % 4:
            wrong.append(("channels", f"is {channels}; allowed: a positive multiple of 4"))
        wrong += multipliers_mistakes(image_size, channel_multipliers)
        refuse(wrong)
        refuse(heads_mistakes(None, head_channels, widths, attends))
        self.size_step = 2 ** (len(widths) - 1)
        dim = max(widths)
        self.fourier = MPFourier(widths[0])
        self.time = MPLayer(widths[0], dim)
        self.condition = None if condition is None else condition(dim=dim)
        self.in_channels = in_channels
        self.first = MPLayer(in_channels + self.own_channels + self.concat_channels, widths[0], 3)

        def block(start: int, end: int, encodes: bool, attend: bool = False, to: nn.Module | None = None) -> MPBlock:
            heads = number_of_heads(end, None, head_channels) if attend else 0
            return MPBlock(start, end, dim, encodes=encodes, heads=heads, dropout=dropout, resample=to)

        self.down, seen = nn.ModuleList(), [widths[0]]
        for level, (width, attend) in enumerate(zip(widths, attends, strict=True)):
            if level > 0:
                self.down.append(block(seen[-1], seen[-1], encodes=True, to=FilterDown(BOX)))
                seen.append(seen[-1])
            for _ in range(blocks_per_level):
                self.down.append(block(seen[-1], width, encodes=True, attend=attend))
                seen.append(width)

        down, width = seen[1:], seen[-1]
        self.up = nn.ModuleList([block(width, width, encodes=False, attend=True), block(width, width, encodes=False)])
        self.joined = [False, False]  # whether each of these takes features of the encoder
        up: list[int] = []  # widths of the steps after these two
        for level in reversed(range(len(widths))):
            for _ in range(blocks_per_level + 1):
                self.up.append(block(width + seen.pop(), widths[level], encodes=False, attend=attends[level]))
                self.joined.append(True)
                width = widths[level]
                up.append(width)
            if level > 0:
                self.up.append(block(width, width, encodes=False, to=FilterUp(BOX)))
                self.joined.append(False)
                up.append(width)
        self.tap_channels = down, down[-1], up
        self.last = MPLayer(width, out_channels, 3)
        self.gain = nn.Parameter(torch.zeros(1))
        # Convolutions are faster with the channels innermost, on the CPU and on the tensor cores of a GPU.
        self.to(memory_format=torch.channels_last)

    @property
    def taps(self) -> Mapping[str, Tap]:
        """See `Network`: as of `UNet`; the middle is the end of two blocks, before the decoder's up_1."""
        (down, middle, up), (_, end, *rest) = self.tap_channels, self.up
        return {**numbered("down", self.down, down), "middle": Tap(end, middle), **numbered("up", rest, up)}

    def unsuited(self) -> list[str]:
        """See `Network`: of labels of transformations the size counts, which is lost here."""
        if self.condition is None or not self.condition.transformed:
            return super().unsuited()
        text = f"transform images, of whose labels {type(self).__name__} would keep the direction alone"
        return [*super().unsuited(), f"{text}; allowed: conditions that do not, or such as model=ddpmpp"]

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network; see `Network.forward`."""
        x, context = self.conditioned(x, cond)
        embedding = self.time(self.fourier(c_noise).to(self.time.weight.dtype))
        if context.vector is not None:
            vector = unit_magnitude(context.vector, dim=1).to(embedding.dtype)
            embedding = mp_sum(embedding, vector, LABEL_BALANCE)
        embedding = mp_silu(embedding)

        image, others = x.split((self.in_channels, self.concat_channels), dim=1)
        x = torch.cat((image, torch.ones_like(image[:, :1]), others), dim=1)
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        seen = [x]
        for block in self.down:
            x = block(x, embedding)
            seen.append(x)
        for block, joined in zip(self.up, self.joined, strict=True):
            x = block(x, embedding, seen.pop() if joined else None)
        return self.last(x, self.gain).contiguous()
