"""The interface of every autoencoder, and the convolutional encoder and decoder of latent diffusion."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from langevin.errors import OptionError, refuse
from langevin.networks.blocks.attention import SelfAttention
from langevin.networks.blocks.block import Block, innermost, normalization
from langevin.networks.blocks.parts import BlockFactory
from langevin.networks.initialization import fan_average, orthogonal
from langevin.networks.unet import levels_mistakes


class Reconstructed(NamedTuple):
    """What an autoencoder makes of images in training.

    Attributes:
        x: the reconstructions (B, C, H, W).
        penalty: what is added to the loss of each image (B,), a mean over the values of an image.
        terms: what it consists of, (B,) each, to be logged.
    """

    x: Tensor
    penalty: Tensor
    terms: dict[str, Tensor]


class Autoencoder(nn.Module, ABC):
    """An encoder to latents of a lower resolution, and a decoder.

    Like every network it takes, beside its own parameters, the spec of the data as keywords: `in_channels` and
    `image_size`. It raises an `OptionError` that names everything incompatible, and is also built on the device "meta".

    Args:
        in_channels: C, of the images.
        image_size: their height and width.
        latent_channels: of the latents.
        factor: by how much smaller the latents' height and width are.

    Attributes:
        axes: how many axes follow the channels of its samples.
        latent_shape: the shape of the latents of one image.
    """

    axes: ClassVar[int] = 2

    def __init__(self, in_channels: int, image_size: int, latent_channels: int, factor: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.image_size = image_size
        self.latent_shape = (latent_channels, image_size // factor, image_size // factor)

    @property
    @abstractmethod
    def last_weight(self) -> Tensor:
        """The weight of the decoder's last layer, at which gradients of two losses are compared."""

    @abstractmethod
    def moments(self, x: Tensor) -> Tensor:
        """What is known of the latents of images (B, C, H, W): (B, M, h, w), from which `latents` draws."""

    @abstractmethod
    def latents(self, moments: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        """Latents (B, *latent_shape) with these moments.

        Args:
            moments: (B, M, h, w).
            noise: draws standard normal noise of the latents' shape; it need not be called.
        """

    @abstractmethod
    def mean_and_variance(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Of the latents that have these moments: (B, *latent_shape) each."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The images (B, C, H, W) of latents (B, *latent_shape)."""

    @abstractmethod
    def forward(self, x: Tensor, noise: Callable[[], Tensor] | None = None) -> Reconstructed:
        """Reconstruct images.

        Args:
            x: images (B, C, H, W) in [-1, 1].
            noise: see `latents`; None: the latents are their means, without noise.
        """


class ConvolutionalAutoencoder(Autoencoder):
    """The encoder and decoder of latent diffusion (Rombach et al. 2022, appendix E): `AutoencoderKL` of diffusers.

    Residual blocks, a strided convolution down and a convolution of repeated pixels up between levels, and
    self-attention in the middle; a 1x1 convolution before and after the latents.

    Args:
        in_channels: C, of the images.
        image_size: their height and width, divisible by 2 ** (number of levels - 1).
        latent_channels: of the latents.
        moment_channels: M, of what describes the latents.
        channels: width of the first convolution.
        channel_multipliers: width of each level as a multiple of `channels`.
        blocks_per_level: residual blocks in each level of the encoder; the decoder has one more.
        dropout: probability in [0, 1) inside the residual blocks.
        norm_groups: see `normalization`.
        norm_epsilon: see `normalization`.
        middle_attention: whether there is attention in the middle.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        latent_channels: int,
        moment_channels: int,
        channels: int,
        channel_multipliers: Sequence[int],
        blocks_per_level: int,
        dropout: float,
        norm_groups: int | None,
        norm_epsilon: float,
        middle_attention: bool,
    ) -> None:
        factor = 2 ** max(0, len(channel_multipliers) - 1)
        if image_size < factor:
            text = f"has {len(channel_multipliers)} levels, which need images of {factor} pixels a side or more, and"
            raise OptionError("channel_multipliers", f"{text} these have {image_size}; allowed: fewer levels")
        refuse(levels_mistakes(image_size, channels, list(channel_multipliers), norm_groups))
        super().__init__(in_channels, image_size, latent_channels, factor)
        parts = BlockFactory(
            embedding_channels=None,
            dropout=dropout,
            norm_epsilon=norm_epsilon,
            heads=None,
            head_channels=None,
            scale_shift=False,
            residual_resampling=False,
            norm_groups=norm_groups,
        )
        widths = [channels * multiplier for multiplier in channel_multipliers]
        self.encoder = Encoder(parts, in_channels, moment_channels, widths, blocks_per_level, middle_attention)
        # A map of few channels is easily next to singular; a channel of the latents would then stay unused.
        self.before = orthogonal(nn.Conv2d(moment_channels, moment_channels, 1))
        self.after = orthogonal(nn.Conv2d(latent_channels, latent_channels, 1))
        self.decoder = Decoder(
            parts, latent_channels, in_channels, widths[::-1], blocks_per_level + 1, middle_attention
        )
        self.to(memory_format=torch.channels_last)

    @property
    def last_weight(self) -> Tensor:
        """See `Autoencoder`."""
        return self.decoder.last.weight

    def moments(self, x: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.before(self.encoder(x.contiguous(memory_format=torch.channels_last)))

    def decode(self, z: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return self.decoder(self.after(z.contiguous(memory_format=torch.channels_last)))


class Encoder(nn.Module):
    """Images to what describes their latents.

    Args:
        parts: makes the blocks.
        in_channels: of the images.
        out_channels: of the result.
        widths: of each level, the highest resolution first.
        blocks_per_level: residual blocks in each.
        attention: whether there is attention in the middle.
    """

    def __init__(
        self,
        parts: BlockFactory,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks_per_level: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.first = fan_average(nn.Conv2d(in_channels, widths[0], 3, padding=1))
        self.down, _ = parts.make_encoder(widths[0], widths, [False] * len(widths), blocks_per_level)
        self.middle = middle(parts, widths[-1], attention)
        self.norm = normalization(widths[-1], parts.norm_epsilon, parts.norm_groups)
        self.last = fan_average(nn.Conv2d(widths[-1], out_channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, h, w)."""
        x = self.first(x)
        for block in (*self.down, *self.middle):
            x = block(x)
        return self.last(innermost(functional.silu(self.norm(x))))


class Decoder(nn.Module):
    """Latents to images.

    Args:
        parts: makes the blocks.
        in_channels: of the latents.
        out_channels: of the images.
        widths: of each level, the lowest resolution first.
        blocks_per_level: residual blocks in each.
        attention: whether there is attention in the middle.
    """

    def __init__(
        self,
        parts: BlockFactory,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        blocks_per_level: int,
        attention: bool,
    ) -> None:
        super().__init__()
        self.first = fan_average(nn.Conv2d(in_channels, widths[0], 3, padding=1))
        self.middle = middle(parts, widths[0], attention)
        self.up = nn.ModuleList()
        before = widths[0]
        for level, width in enumerate(widths):
            if level > 0:
                self.up.append(parts.upsample(before))
            for _ in range(blocks_per_level):
                self.up.append(parts.residual(before, width))
                before = width
        self.norm = normalization(before, parts.norm_epsilon, parts.norm_groups)
        self.last = fan_average(nn.Conv2d(before, out_channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Map (B, in_channels, h, w) to (B, C, H, W)."""
        z = self.first(z)
        for block in (*self.middle, *self.up):
            z = block(z)
        return self.last(innermost(functional.silu(self.norm(z))))


def middle(parts: BlockFactory, width: int, attention: bool) -> nn.ModuleList:
    """The blocks at the lowest resolution: two residual blocks, with attention of one head between them."""
    between: list[Block] = []
    if attention:
        between = [SelfAttention(width, 1, parts.norm_epsilon, norm_groups=parts.norm_groups)]
    return nn.ModuleList([parts.residual(width, width), *between, parts.residual(width, width)])
