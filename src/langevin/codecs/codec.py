"""The interface of every codec."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from langevin.config.types import path_of
from langevin.diffusion.draws import Draws
from langevin.digest import digest_of
from langevin.spec import DataSpec


class Codec(nn.Module, ABC):
    """Maps samples to the latents that are diffused, and back. It is not trained with the model.

    Its constructor may take the data's `spec` and its `network`, beside its own parameters.

    Attributes:
        uses: the group of its network; None where it has none.
    """

    uses: ClassVar[str | None] = None

    @abstractmethod
    def spec(self, spec: DataSpec) -> DataSpec:
        """The spec of the latents of samples of some spec.

        Raises:
            UserError: when such samples cannot be encoded.
        """

    def record(self) -> dict[str, Any]:
        """What of it decides samples, as entries of a protocol: plain values."""
        return {"codec": {"class": path_of(type(self)), "weights": digest_of(self)}}

    @abstractmethod
    def encode(self, x: Tensor, draws: Draws) -> Tensor:
        """The latents (B, ...) of samples x (B, C, *size).

        Args:
            x: as the modality gives them to a model.
            draws: the samples' random numbers, of the shape of x.
        """

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The samples x (B, C, *size) of latents (B, ...)."""


class LatentStatistics(NamedTuple):
    """What the latents of some samples are, over all samples and places, channel by channel.

    Attributes:
        mean: float64 (C,).
        variance: float64 (C,), the noise's included.
    """

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, moments: Iterable[tuple[Tensor, Tensor]]) -> Self:
        """In closed form: the variance is that of the means, and the mean of the variances.

        Args:
            moments: means and variances (B, C, *size) of the latents of some samples, as often as there are any.
        """
        count, mean, squares, noise = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
        for means, variances in moments:
            rows = means.double().transpose(0, 1).flatten(1)
            size, of_rows = rows.shape[1], rows.mean(1)
            # Around the mean so far (Chan et al. 1983), so that no large numbers cancel.
            delta, total = of_rows - mean, count + size
            squares = squares + (rows - of_rows[:, None]).square().sum(1) + delta.square() * (count * size / total)
            mean = mean + delta * (size / total)
            noise = noise + variances.double().transpose(0, 1).flatten(1).sum(1)
            count = total
        return cls(mean, (squares + noise) / count)


class CachedCodec(Codec):
    """A codec whose work on the training data is done once: latents are drawn of moments, which are stored."""

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """What the moments depend on."""

    @abstractmethod
    def moments(self, x: Tensor) -> Tensor:
        """What latents of samples x (B, C, *size) are drawn of: (B, M, ...)."""

    @abstractmethod
    def latents(self, moments: Tensor, draws: Draws) -> Tensor:
        """The latents (B, ...) with these moments (B, M, ...)."""

    @abstractmethod
    def mean_and_variance(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Of latents that have these moments, before they are scaled: (B, C, ...) each."""

    @abstractmethod
    def fit(self, statistics: LatentStatistics) -> None:
        """Scale latents by what they are on the training data.

        Raises:
            UserError: when that cannot be.
        """

    def encode(self, x: Tensor, draws: Draws) -> Tensor:
        """See `Codec`."""
        return self.latents(self.moments(x), draws)
