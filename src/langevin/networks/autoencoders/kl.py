"""The variational autoencoder of latent diffusion."""

from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch import Tensor

from langevin.networks.autoencoders.autoencoder import ConvolutionalAutoencoder, Reconstructed
from langevin.networks.blocks.block import NORM_EPSILON

LOG_VARIANCES = (-30.0, 20.0)
"""The range that log-variances are clamped to, as in CompVis' code and in diffusers."""


class KLAutoencoder(ConvolutionalAutoencoder):
    """Latents are Gaussian, drawn from the mean and variance that the encoder gives, with a small penalty on their KL.

    Source: Rombach et al. 2022, section 3.1 and appendix G; Kingma and Welling 2014. As many weights, and the same
    function, as diffusers' `AutoencoderKL`.

    Args:
        in_channels: C, of the images.
        image_size: their height and width, divisible by 2 ** (number of levels - 1).
        latent_channels: of the latents.
        channels: width of the first convolution, a multiple of 32, or of `norm_groups` and 4.
        channel_multipliers: width of each level as a multiple of `channels`; each level but the first halves the
            resolution.
        blocks_per_level: residual blocks in each level of the encoder; the decoder has one more.
        kl_weight: of the Kullback-Leibler divergence to a standard normal distribution, summed over the latents of an
            image and divided by the number of its values, as the reconstruction's error is a mean over these.
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
        channels: int,
        channel_multipliers: list[int],
        blocks_per_level: Annotated[int, Ge(1)],
        kl_weight: Annotated[float, Ge(0)] = 1e-6,
        middle_attention: bool = True,
        norm_groups: Annotated[int, Ge(1)] | None = None,
        norm_epsilon: Annotated[float, Gt(0)] = NORM_EPSILON,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            image_size=image_size,
            latent_channels=latent_channels,
            moment_channels=2 * latent_channels,
            channels=channels,
            channel_multipliers=channel_multipliers,
            blocks_per_level=blocks_per_level,
            dropout=dropout,
            norm_groups=norm_groups,
            norm_epsilon=norm_epsilon,
            middle_attention=middle_attention,
        )
        self.kl_weight = kl_weight

    def mean_and_variance(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """See `Autoencoder`."""
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCES).exp()

    def latents(self, moments: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        """See `Autoencoder`."""
        mean, variance = self.mean_and_variance(moments)
        return mean + variance.sqrt() * noise()

    def forward(self, x: Tensor, noise: Callable[[], Tensor] | None = None) -> Reconstructed:
        """See `Autoencoder`; the term "kl" is the divergence in nats an image."""
        moments = self.moments(x).float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(*LOG_VARIANCES)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        z = mean if noise is None else self.latents(moments, noise)
        penalty = self.kl_weight / x[0].numel() * kl
        return Reconstructed(self.decode(z), penalty, {"kl": kl.detach()})
