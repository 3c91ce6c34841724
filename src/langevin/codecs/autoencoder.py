"""A trained autoencoder between the samples and what is diffused."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor

from langevin.codecs.codec import CachedCodec, LatentStatistics
from langevin.diffusion.draws import Draws
from langevin.digest import digest_of
from langevin.errors import OptionError, UserError
from langevin.networks.autoencoders.autoencoder import Autoencoder
from langevin.spec import DataSpec

PIXELS = 2**20
"""How many pixels are encoded or decoded at once: of 256 x 256 images 16, whose maps of 128 channels take 0.5 GiB."""
SMALLEST_SCALE = 1e-6
"""Of a latent channel's standard deviation: below it there is nothing to diffuse."""

Loader = Callable[[str, str], Mapping[str, Tensor]]


class AutoencoderCodec(CachedCodec):
    """Diffuses the latents of a run of task=autoencoder, brought to mean 0 and standard deviation 1.

    Latents are drawn anew at every training step, ``(mean + sigma eps - shift) / scale``, of moments that are computed
    once; samples are decoded with the run's EMA weights. Shift and scale come from the moments of all training samples
    in closed form, ``scale^2 = Var(mean) + E[sigma^2]``; latent diffusion took the scale of one batch (Rombach et al.
    2022, appendix G), and no shift.

    Args:
        spec: of the data.
        network: the autoencoder, of the shape of the run's.
        run: the run; None where its weights come from a checkpoint of the model that was trained in its latents.
        weights: the digest of the run's EMA weights, which identifies it wherever it lies; None: not known.
        channels: of the images that it was trained on; None: not known.
        scaling: "channels": a shift and a scale for each channel of the latents; "global": one scale and no shift; a
            number: what latents are multiplied with, such as Stable Diffusion's 0.18215.
        load_autoencoder: gives the EMA weights of a run, called with the option that names it and its value; None:
            the network keeps its own.

    Raises:
        OptionError: when the run's weights are other ones.
    """

    uses = "autoencoder"

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        spec: DataSpec,
        network: Autoencoder,
        run: str | None = None,
        weights: str | None = None,
        channels: int | None = None,
        scaling: Literal["channels", "global"] | Annotated[float, Gt(0)] = "channels",
        load_autoencoder: Loader | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.scaling = scaling
        self.weights = weights
        factor = 1.0 if isinstance(scaling, str) else 1 / scaling
        shape = (network.latent_shape[0], 1, 1)
        self.register_buffer("shift", torch.zeros(shape))
        self.register_buffer("scale", torch.full(shape, factor))
        if run is not None and load_autoencoder is not None:
            network.load_state_dict(load_autoencoder("run", run))
            if weights not in (None, found := digest_of(network)):
                raise OptionError(
                    "run", f"is {run}, whose weights are {found[:8]} now; allowed: those of {weights[:8]}"
                )

    @property
    def encoder(self) -> Autoencoder:
        """See `CachedCodec`."""
        return self.network

    def spec(self, spec: DataSpec) -> DataSpec:
        """See `Codec`."""
        if len(spec.shape) != 3:
            raise UserError(f"is of images (C, H, W), and these samples are of shape {spec.shape}")
        if self.channels not in (None, spec.channels):
            raise UserError(f"is of a run on images of {self.channels} channels, and these have {spec.channels}")
        name = None if self.weights is None else f"{self.weights}, {self.scaling}"
        return replace(spec, shape=self.network.latent_shape, levels=None, latents=name)

    def moments(self, x: Tensor) -> Tensor:
        """See `CachedCodec`."""
        return torch.cat([self.network.moments(part) for part in slices(x, x.shape[2] * x.shape[3])])

    def latents(self, moments: Tensor, draws: Draws) -> Tensor:
        """See `CachedCodec`."""
        z = self.network.latents(moments, lambda: draws.normal(self.network.latent_shape))
        return (z - self.shift) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """See `Codec`."""
        z = z.to(self.scale.device) * self.scale + self.shift
        pixels = self.network.image_size**2
        return torch.cat([self.network.decode(part).float() for part in slices(z, pixels)])

    def mean_and_variance(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """See `CachedCodec`."""
        return self.network.mean_and_variance(moments)

    def fit(self, statistics: LatentStatistics) -> None:
        """See `CachedCodec`: sets shift and scale, where they are not given.

        Raises:
            OptionError: when the latents do not vary.
        """
        if not isinstance(self.scaling, str):
            return
        shift, variance = statistics.mean, statistics.variance
        if self.scaling == "global":
            # One scale is taken of the variance around the mean of all latents, as of a batch's standard deviation.
            variance = (variance + (shift - shift.mean()).square()).mean().expand_as(variance)
            shift = torch.zeros_like(shift)
        scale = variance.sqrt()
        if not bool(torch.isfinite(scale).all()) or float(scale.min()) < SMALLEST_SCALE:
            listed = ", ".join(f"{value:.3g}" for value in scale.tolist())
            text = f"is {self.scaling}, but the latents' standard deviations are {listed}: a channel does not vary"
            raise OptionError("scaling", f"{text}; allowed: an autoencoder whose latents do, or a number")
        for buffer, values in ((self.shift, shift), (self.scale, scale)):
            buffer.copy_(values.reshape(-1, 1, 1))


def slices(x: Tensor, pixels: int) -> Iterator[Tensor]:
    """Parts of a batch (B, ...) of samples of so many pixels each, of at most `PIXELS` or one sample."""
    yield from x.split(max(1, PIXELS // pixels))
