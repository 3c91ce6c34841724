"""The U-Net of DDPM (Ho, Jain & Abbeel 2020, appendix B) and its successors: one network, differences are options."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional

from langevin.conditions.condition import Condition
from langevin.errors import UserError, refuse
from langevin.networks.blocks.block import NORM_EPSILON, NORM_GROUPS, Chain, innermost, normalization
from langevin.networks.blocks.parts import BlockFactory
from langevin.networks.blocks.progressive import ProgressiveInput
from langevin.networks.blocks.resample import BOX, FilterDown
from langevin.networks.blocks.way_down import WayDown
from langevin.networks.control import HINT_WIDTHS, PREFIX, ControlBranch
from langevin.networks.embeddings import TimeEmbedding
from langevin.networks.initialization import fan_average, zero
from langevin.networks.network import NOTHING_TO_ATTEND_TO, Network
from langevin.taps import Tap, numbered


class UNet(Network, WayDown):
    """A U-Net: an encoder and a decoder with a skip connection between matching steps.

    Each level halves the resolution of the one above it. What the lowest ends in does not depend on
    `attention_resolutions`. The defaults are DDPM's choices; others make it the network
    of IDDPM and ADM (Nichol & Dhariwal 2021, Dhariwal & Nichol 2021), and DDPM++ and NCSN++ (Song et al. 2021,
    Score-SDE) as EDM has them (Karras et al. 2022). Weights start by DDPM's scheme and the last layer of every branch
    at zero, whichever they are.

    Args:
        in_channels: channels of the input image.
        out_channels: channels of the output: more than `in_channels` where a variance is learned.
        image_size: height and width of the image, divisible by 2 ** (number of levels - 1). It places the attention;
            images of other sizes, each side divisible likewise, have it at the same levels.
        condition: builds the condition's embedding, called with `dim=`; None for an unconditional network.
        channels: width of the first convolution, a multiple of 32, or of `norm_groups` and of 4. The embedding is four
            times as wide.
        channel_multipliers: width of each level as a multiple of `channels`; its length is the number of levels.
        blocks_per_level: residual blocks in each level of the encoder; one more in the decoder.
        attention_resolutions: heights of feature maps where self-attention follows each residual block. Some may not
            occur at this image size, so that one preset serves several sizes.
        middle_attention: whether the lowest resolution ends in a residual block, self-attention and a residual block;
            else in one residual block (`UNet2DConditionModel` and `ControlNetModel` of diffusers without text).
        single_up_attention: whether self-attention follows only the last residual block of such a level of the decoder.
        heads: number of attention heads, a divisor of every width that attends; None leaves it to `head_channels`.
        head_channels: width of one attention head, a divisor of every width that attends; None leaves it to `heads`.
            With both None there is a single head.
        time_embedding: features of the noise level: "sinusoidal" (DDPM's), "cosine_first" (OpenAI's: cosines first,
            without the lowest frequency; see `sinusoidal_embedding`) or "fourier" (NCSN++'s; see `Fourier`).
        map_condition: whether the condition joins these features before the linear layers (EDM's DDPM++ and NCSN++);
            else it is added after them (ADM).
        cross_attention: whether the condition enters by its tokens instead, whose keys and values join those of the
            pixels in every attention, each with a projection to its own width (GLIDE; Nichol et al. 2021, arXiv
            2112.10741), or by `transformer_depth`. A vector by itself is one token, and the embedding then that of the
            noise level only; a vector beside tokens is added to it.
        transformer_depth: 0 for GLIDE's attention; else every attention is a transformer of so many blocks, in which
            attention to the tokens follows that of the pixels to each other (Stable Diffusion; see
            `SpatialTransformer`).
        scale_shift: whether the embedding scales and shifts a normalization (AdaGN); else it is added to the features.
        skip_rescale: whether every sum of a residual branch, or attention, and its shortcut is divided by sqrt(2).
        residual_resampling: whether the resolution changes inside residual blocks (BigGAN, ADM), one more in each level
            but the lowest, down and up; else by a strided convolution, and nearest neighbours with a convolution.
        symmetric_padding: whether the strided convolution pads all sides (OpenAI); else only two (DDPM).
        resample_filter: taps of the filter of `residual_resampling` and `progressive_input`; see `Filter`.
        resample_projection: whether these blocks' shortcuts are 1x1 convolutions even where the width is kept.
        progressive_input: whether the image is an input at every resolution; see `ProgressiveInput`.
        norm_epsilon: GroupNorm's: 1e-6 in DDPM and NCSN++, 1e-5 in OpenAI's networks.
        norm_groups: GroupNorm's groups, the same number at every width, as in diffusers; None: at most 32, of at least
            4 channels each. A group of one channel removes what the embedding adds to it.
        dropout: probability in [0, 1) inside the residual blocks.
        checkpointing: keep only each step's input for the gradient and recompute the rest: slower by about a third,
            with much less memory. The gradients are the same.
        control: whether images that conditions give enter by a trainable copy of the encoder, and all else is frozen
            (ControlNet; see `ControlBranch`); else they are concatenated with x.
        control_channels: widths inside the adapter's stem of these images. Each after the first halves their size: with
            n widths, hints have 2 ** (n - 1) times the side of x, for models of latents.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

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
        middle_attention: bool = True,
        single_up_attention: bool = False,
        heads: Annotated[int, Ge(1)] | None = None,
        head_channels: int | None = None,
        time_embedding: Literal["sinusoidal", "cosine_first", "fourier"] = "sinusoidal",
        map_condition: bool = False,
        cross_attention: bool = False,
        transformer_depth: Annotated[int, Ge(0)] = 0,
        scale_shift: bool = False,
        skip_rescale: bool = False,
        residual_resampling: bool = False,
        symmetric_padding: bool = False,
        resample_filter: Sequence[float] = BOX,
        resample_projection: bool = False,
        progressive_input: bool = False,
        norm_epsilon: Annotated[float, Gt(0)] = NORM_EPSILON,
        norm_groups: Annotated[int, Ge(1)] | None = None,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        checkpointing: bool = False,
        control: bool = False,
        control_channels: Sequence[int] = HINT_WIDTHS,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in channel_multipliers]
        attends = [image_size // 2**level in attention_resolutions for level in range(len(widths))]
        wrong = levels_mistakes(image_size, channels, channel_multipliers, norm_groups)
        wrong += heads_mistakes(heads, head_channels, widths, attends, middle_attention)
        wrong += _filter_mistakes(list(resample_filter), residual_resampling or progressive_input)
        if cross_attention and map_condition:
            wrong.append(("cross_attention", "is true beside map_condition; allowed: one of them, the other false"))
        elif cross_attention and condition is None:
            wrong.append(NOTHING_TO_ATTEND_TO)
        if transformer_depth > 0 and not cross_attention:
            text = f"is {transformer_depth} without cross_attention; allowed: 0, or cross_attention=true"
            wrong.append(("transformer_depth", text))
        if resample_projection and not residual_resampling:
            text = "is true, but there is no block to act in; allowed: false, or residual_resampling=true"
            wrong.append(("resample_projection", text))
        wrong += padding_mistakes(symmetric_padding, residual_resampling)
        if control and dropout > 0:
            wrong.append(("dropout", f"is {dropout} beside control; allowed: 0, since the network is frozen"))
        if not control_channels or min(control_channels) < 1:
            text = f"is {list(control_channels)}; allowed: one or more positive integers"
            wrong.append(("control_channels", text))
        elif tuple(control_channels) != HINT_WIDTHS and not control:
            allowed = f"{list(HINT_WIDTHS)}, or control=true"
            wrong.append(("control_channels", f"is {list(control_channels)}, with no adapter; allowed: {allowed}"))
        refuse(wrong)
        self.size_step = 2 ** (len(widths) - 1)
        self.map_condition = map_condition
        self.attends = cross_attention
        self.checkpointing = checkpointing
        embedding_channels = 4 * channels
        self.time = TimeEmbedding(channels, embedding_channels, time_embedding)
        dim = self.time.features.channels if map_condition else embedding_channels
        self.condition = None if condition is None else condition(dim=dim)
        images = self.concat_channels
        if control and images == 0:
            text = "is true, but no condition gives images to control by; add conditions=[hint], or take false"
            refuse([("control", text)])
        if self.condition is not None and control:
            try:
                self.condition.enlarge(2 ** (len(control_channels) - 1))
            except UserError as error:
                text = f"is {list(control_channels)}, and a condition {error}; allowed: one width"
                refuse([("control_channels", text)])
            self.adapter = PREFIX
        else:
            in_channels += images
        self.first = fan_average(nn.Conv2d(in_channels, channels, 3, padding=1))

        parts = BlockFactory(
            embedding_channels=embedding_channels,
            dropout=dropout,
            norm_epsilon=norm_epsilon,
            heads=heads,
            head_channels=head_channels,
            scale_shift=scale_shift,
            skip_rescale=skip_rescale,
            residual_resampling=residual_resampling,
            symmetric_padding=symmetric_padding,
            resample_filter=resample_filter,
            resample_projection=resample_projection,
            token_channels=self.token_channels(embedding_channels),
            norm_groups=norm_groups,
            transformer_depth=transformer_depth,
        )

        self.down, skips = parts.make_encoder(channels, widths, attends, blocks_per_level)
        self.progressive = nn.ModuleDict()  # by the index, in `down`, of the step after which the image comes in
        if progressive_input:
            for level, width in enumerate(widths[:-1]):
                pyramid = widths[level - 1] if level > 0 else in_channels  # what comes in from above
                filtered = FilterDown(resample_filter)
                index = (level + 1) * (blocks_per_level + 1) - 1
                self.progressive[str(index)] = ProgressiveInput(pyramid, width, filtered)
        self.tap_channels = (
            skips[1:],
            skips[-1],
            [width for width in reversed(widths) for _ in range(blocks_per_level + 1)],
        )
        width = skips[-1]
        self.middle = parts.middle(width, middle_attention)
        self.control = ControlBranch(self, images, skips, control_channels) if control else None

        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for remaining in reversed(range(blocks_per_level + 1)):
                attend = attends[level] and (remaining == 0 or not single_up_attention)
                blocks = parts.step(width + skips.pop(), widths[level], attend)
                width = widths[level]
                if level > 0 and remaining == 0:
                    blocks.append(parts.upsample(width))
                self.up.append(Chain(*blocks))

        self.norm = normalization(width, norm_epsilon, norm_groups)
        self.last = zero(nn.Conv2d(width, out_channels, 3, padding=1))
        # Convolutions are faster with the channels innermost, on the CPU and on the tensor cores of a GPU.
        self.to(memory_format=torch.channels_last)
        if self.control is not None:
            self.default_tap = "up_1"
            self.requires_grad_(False)
            self.control.requires_grad_(True)

    @property
    def taps(self) -> Mapping[str, Tap]:
        """See `Network`: the steps of the encoder (down_1, ...), the middle, and the steps of the decoder (up_1, ...).

        Of a step that ends in another resolution these are the features of that. Beside an adapter encoder and middle
        are frozen, and only the decoder's features can be trained.
        """
        down, middle, up = self.tap_channels
        decoder = numbered("up", self.up, up)
        if self.control is not None:
            return decoder
        return {**numbered("down", self.down, down), "middle": Tap(self.middle, middle), **decoder}

    @property
    def concat_channels(self) -> int:
        """See `Network`: none where the images go to `ControlBranch`."""
        return super().concat_channels if self.adapter is None else 0

    def started(self, taken: Collection[str]) -> None:
        """See `Network`: the branch starts as a copy, unless its own weights were taken."""
        if self.control is not None and not any(name.startswith(PREFIX) for name in taken):
            self.control.copy(self)

    def forward(self, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """Evaluate the network; see `Network.forward`."""
        x, context = self.conditioned(x, cond)
        vector, tokens, images, scale, mask = context.attended() if self.attends else context
        embedding = self.embed(c_noise, vector)
        x = x.contiguous(memory_format=torch.channels_last)
        seen = self.encode(x, embedding, tokens, mask)
        if self.control is not None and images is not None:
            added = self.control(x, images.to(x), c_noise, vector, tokens, mask)
            if scale is not None:
                added = [scale.to(x).reshape(-1, 1, 1, 1) * each for each in added]
            seen = [own + each for own, each in zip(seen, added, strict=True)]
        x = seen.pop()
        for block in self.up:
            x = self.run(block, torch.cat((x, seen.pop()), dim=1), embedding, tokens, mask)
        # The layout is nobody else's business: the result is in the usual one.
        return self.last(innermost(functional.silu(self.norm(x)))).contiguous()


def levels_mistakes(
    image_size: int, channels: int, multipliers: list[int], groups: int | None = None
) -> list[tuple[str, str]]:
    """What is wrong with the levels of a U-Net, see `OptionError`."""
    wrong = []
    if channels < 1 or channels % math.lcm(4, groups or NORM_GROUPS):
        of_groups = f"{NORM_GROUPS}, the groups of GroupNorm" if groups is None else f"norm_groups ({groups}) and of 4"
        allowed = f"a positive multiple of {of_groups}"
        wrong.append(("channels", f"is {channels}; allowed: {allowed}"))
    return wrong + multipliers_mistakes(image_size, multipliers)


def multipliers_mistakes(image_size: int, multipliers: list[int]) -> list[tuple[str, str]]:
    """What is wrong with the number of levels and their relative widths, see `OptionError`."""
    if not multipliers or min(multipliers) < 1:
        return [("channel_multipliers", f"is {list(multipliers)}; allowed: one positive integer for each level")]
    factor = 2 ** (len(multipliers) - 1)
    if image_size < 1 or image_size % factor:
        text = f"has {len(multipliers)} levels, and image_size={image_size} is not divisible by {factor}"
        return [("channel_multipliers", f"{text}; allowed: fewer levels, or another image size")]
    return []


def heads_mistakes(
    heads: int | None, head_channels: int | None, widths: Sequence[int], attends: Sequence[bool], middle: bool = True
) -> list[tuple[str, str]]:
    """What is wrong with the heads in levels of these widths, some of which attend, see `OptionError`."""
    if heads is not None and head_channels is not None:
        return [("heads", f"is {heads} beside head_channels={head_channels}; allowed: one of them, the other null")]
    split = sorted(
        {*(widths[-1:] if middle else ()), *(width for width, attend in zip(widths, attends, strict=True) if attend)}
    )
    return [
        (name, f"is {value}; allowed: a divisor of each of the widths {split}, or null for a single head")
        for name, value in (("heads", heads), ("head_channels", head_channels))
        if value is not None and (value < 1 or any(width % value for width in split))
    ]


def padding_mistakes(symmetric_padding: bool, residual_resampling: bool) -> list[tuple[str, str]]:
    """The mistake of padding convolutions that are not there, see `OptionError`."""
    if not (symmetric_padding and residual_resampling):
        return []
    text = "is true, but there is no convolution to pad; allowed: false with residual_resampling"
    return [("symmetric_padding", text)]


def _filter_mistakes(taps: list[float], used: bool) -> list[tuple[str, str]]:
    """What is wrong with the filter, where something is filtered or not."""
    if len(taps) < 2 or len(taps) % 2 or sum(taps) <= 0:
        allowed = "an even number of taps with a positive sum, such as [1, 1] or [1, 3, 3, 1]"
        return [("resample_filter", f"is {taps}; allowed: {allowed}")]
    if tuple(taps) != BOX and not used:
        allowed = f"{list(BOX)}, or residual_resampling or progressive_input"
        return [("resample_filter", f"is {taps}, with nothing to filter; allowed: {allowed}")]
    return []
