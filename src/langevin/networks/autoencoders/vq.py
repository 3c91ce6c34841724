"""The vector-quantised autoencoder of latent diffusion."""

from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from langevin.networks.autoencoders.autoencoder import ConvolutionalAutoencoder, Reconstructed
from langevin.networks.blocks.block import NORM_EPSILON


class VQAutoencoder(ConvolutionalAutoencoder):
    """Each pixel of the latents is replaced by the nearest of some learnt vectors, the codes, before it is decoded.

    What is diffused are the latents before that: decoding quantises them. Source: van den Oord et al. 2017, equation 3;
    Esser et al. 2021; Rombach et al. 2022, section 3.1. The same function as diffusers' `VQModel`.

    Args:
        in_channels: C, of the images.
        image_size: their height and width, divisible by 2 ** (number of levels - 1).
        latent_channels: of the latents, the size of a code.
        num_codes: how many codes there are.
        channels: width of the first convolution, a multiple of 32, or of `norm_groups` and 4.
        channel_multipliers: width of each level as a multiple of `channels`; each level but the first halves the
            resolution.
        blocks_per_level: residual blocks in each level of the encoder; the decoder has one more.
        codebook_weight: of the squared distances, means over the values of the latents, of the codes to the latents.
        commitment: by what the distance of the latents to the codes counts beside.
        legacy: whether `commitment` counts on the other of the two distances, as in the first code of VQGAN, and by
            default in diffusers: of the codes to the latents.
        middle_attention: whether there is self-attention at the lowest resolution.
        norm_groups: GroupNorm's groups at every width; None: at most 32, of at least 4 channels.
        norm_epsilon: GroupNorm's.
        dropout: probability in [0, 1) inside the residual blocks.

    Raises:
        OptionError: when some of these are incompatible, or do not fit the image size.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        latent_channels: Annotated[int, Ge(1)],
        num_codes: Annotated[int, Ge(2)],
        channels: int,
        channel_multipliers: list[int],
        blocks_per_level: Annotated[int, Ge(1)],
        codebook_weight: Annotated[float, Gt(0)] = 1.0,
        commitment: Annotated[float, Ge(0)] = 0.25,
        legacy: bool = False,
        middle_attention: bool = True,
        norm_groups: Annotated[int, Ge(1)] | None = None,
        norm_epsilon: Annotated[float, Gt(0)] = NORM_EPSILON,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            image_size=image_size,
            latent_channels=latent_channels,
            moment_channels=latent_channels,
            channels=channels,
            channel_multipliers=channel_multipliers,
            blocks_per_level=blocks_per_level,
            dropout=dropout,
            norm_groups=norm_groups,
            norm_epsilon=norm_epsilon,
            middle_attention=middle_attention,
        )
        self.codebook_weight = codebook_weight
        self.commitment = commitment
        self.legacy = legacy
        self.codes = nn.Embedding(num_codes, latent_channels)
        nn.init.uniform_(self.codes.weight, -1 / num_codes, 1 / num_codes)

    def mean_and_variance(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """See `Autoencoder`: no noise is drawn."""
        return moments, torch.zeros_like(moments)

    def latents(self, moments: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        """See `Autoencoder`: the moments, which are the latents before they are quantised."""
        return moments

    def nearest(self, z: Tensor) -> Tensor:
        """The number of the nearest code of each pixel of latents (B, latent_channels, h, w): int64 (B, h, w)."""
        pixels = z.detach().float().movedim(1, -1)
        distances = torch.cdist(pixels.reshape(-1, pixels.shape[-1]), self.codes.weight.float())
        return distances.argmin(1).reshape(pixels.shape[:-1])

    def quantised(self, z: Tensor) -> Tensor:
        """The nearest codes of latents (B, latent_channels, h, w), of the same shape."""
        return self.codes(self.nearest(z)).movedim(-1, 1)

    def decode(self, z: Tensor) -> Tensor:
        """See `Autoencoder`; quantises first."""
        return super().decode(self.quantised(z))

    def forward(self, x: Tensor, noise: Callable[[], Tensor] | None = None) -> Reconstructed:
        """See `Autoencoder`; the term "codebook" is the mean squared distance of the latents to their codes."""
        z = self.moments(x)
        codes = self.quantised(z)
        to_latents, to_codes = (
            (one - other.detach()).square().flatten(1).mean(1) for one, other in ((codes, z), (z, codes))
        )
        of_codes, of_latents = (self.commitment, 1.0) if self.legacy else (1.0, self.commitment)
        penalty = self.codebook_weight * (of_codes * to_latents + of_latents * to_codes)
        # The gradient passes by the quantisation as if it were not there.
        straight = z + (codes - z).detach()
        return Reconstructed(super().decode(straight), penalty, {"codebook": to_codes.detach()})
