"""The interface of every codec."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from langevin.config.types import path_of
from langevin.diffusion.draws import Draws
from langevin.digest import digest_of
from langevin.spec import DataSpec


class Codec(nn.Module, ABC):
    """Maps samples to the latents that are diffused, and back. It is not trained with the model.

    Its constructor may take the data's `spec`, beside its own parameters.
    """

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
