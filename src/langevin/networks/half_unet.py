"""A classifier of noisy images: a U-Net's encoder, its output pooled by attention."""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn import functional

from langevin.errors import refuse
from langevin.networks.blocks.attention import number_of_heads
from langevin.networks.blocks.attention_pool import AttentionPool
from langevin.networks.blocks.block import NORM_EPSILON, normalization
from langevin.networks.blocks.parts import BlockFactory
from langevin.networks.classifier_network import ClassifierNetwork
from langevin.networks.embeddings import TimeEmbedding
from langevin.networks.initialization import fan_average
from langevin.networks.unet import heads_mistakes, levels_mistakes, padding_mistakes


class HalfUNet(ClassifierNetwork):
    """The classifier of ADM (Dhariwal & Nichol 2021, section 4 and appendix H).

    A user's parameters mean what they mean in `UNet`.

    Args:
        in_channels: channels of the input image.
        num_classes: how many classes it distinguishes.
        image_size: height and width of the image, divisible by 2 ** (number of levels - 1).
        channels: width of the first convolution, a multiple of 32.
        channel_multipliers: width of each level as a multiple of `channels`.
        blocks_per_level: residual blocks in each level.
        attention_resolutions: heights of feature maps where self-attention follows each residual block.
        head_channels: width of one attention head, in the pooling too; None for a single head.
        time_embedding: features of the noise level.
        scale_shift: whether the embedding scales and shifts a normalization (AdaGN); else it is added to the features.
        residual_resampling: whether the resolution changes inside residual blocks.
        symmetric_padding: whether the strided convolution, where it does not, pads all sides (OpenAI).
        norm_epsilon: GroupNorm's.
        dropout: probability in [0, 1) inside the residual blocks.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        image_size: int,
        channels: int,
        channel_multipliers: list[int],
        blocks_per_level: Annotated[int, Ge(1)],
        attention_resolutions: list[int],
        head_channels: Annotated[int, Ge(1)] | None,
        time_embedding: Literal["sinusoidal", "cosine_first", "fourier"] = "cosine_first",
        scale_shift: bool = True,
        residual_resampling: bool = True,
        symmetric_padding: bool = False,
        norm_epsilon: Annotated[float, Gt(0)] = NORM_EPSILON,
        dropout: Annotated[float, Ge(0), Lt(1)],
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in channel_multipliers]
        attends = [image_size // 2**level in attention_resolutions for level in range(len(widths))]
        wrong = levels_mistakes(image_size, channels, channel_multipliers)
        wrong += heads_mistakes(None, head_channels, widths, attends)
        wrong += padding_mistakes(symmetric_padding, residual_resampling)
        refuse(wrong)
        parts = BlockFactory(
            embedding_channels=4 * channels,
            dropout=dropout,
            norm_epsilon=norm_epsilon,
            heads=None,
            head_channels=head_channels,
            scale_shift=scale_shift,
            residual_resampling=residual_resampling,
            symmetric_padding=symmetric_padding,
        )
        self.time = TimeEmbedding(channels, 4 * channels, time_embedding)
        self.first = fan_average(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.down, seen = parts.make_encoder(channels, widths, attends, blocks_per_level)
        self.middle = parts.middle(seen[-1])
        self.norm = normalization(seen[-1], norm_epsilon)
        side = image_size // 2 ** (len(widths) - 1)
        self.pool = AttentionPool(seen[-1], number_of_heads(seen[-1], None, head_channels), side, num_classes)
        # Convolutions are faster with the channels innermost.
        self.to(memory_format=torch.channels_last)

    def features(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The pooled features, see `ClassifierNetwork`. Height and width are those given as `image_size`."""
        embedding = self.time(c_noise)
        x = self.middle(self._down(x, embedding)[-1], embedding)
        return self.pool(functional.silu(self.norm(x)))

    def levels(self, x: Tensor, c_noise: Tensor) -> list[Tensor]:
        """What each level of the way down ends in, the finest first, see `ClassifierNetwork`."""
        return self._down(x, self.time(c_noise))

    def _down(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        x = self.first(x.contiguous(memory_format=torch.channels_last))
        last: dict[int, Tensor] = {}  # by the height
        for block in self.down:
            x = block(x, embedding)
            last[x.shape[2]] = x
        return list(last.values())

    def classify(self, features: Tensor) -> Tensor:
        """See `ClassifierNetwork`."""
        return self.pool.project(features)
