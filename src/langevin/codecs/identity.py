"""No codec: the data itself is diffused."""

from typing import Any

from torch import Tensor

from langevin.codecs.codec import Codec
from langevin.diffusion.draws import Draws
from langevin.spec import DataSpec


class Identity(Codec):
    """Leaves samples as they are."""

    def __init__(self) -> None:
        super().__init__()

    def spec(self, spec: DataSpec) -> DataSpec:
        """See `Codec`."""
        return spec

    def record(self) -> dict[str, Any]:
        """See `Codec`: nothing."""
        return {}

    def encode(self, x: Tensor, draws: Draws) -> Tensor:
        """See `Codec`."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """See `Codec`."""
        return z
