"""The size of an image, and where it was cropped."""

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from langevin.conditions.condition import Condition, Context
from langevin.errors import OptionError, UserError
from langevin.images import SIZE
from langevin.networks.embeddings import sinusoidal_embedding
from langevin.networks.initialization import zero

NUMBERS = 6


class ImageSize(Condition):
    """The network is told whether an image was enlarged, where it was cropped, and the size that it has now.

    So a small image that was enlarged, or one of which a part is cut off, need not be left out: what is sampled is told
    to be whole and never enlarged. Sinusoidal features of each number go through two linear layers with SiLU between,
    whose last weights start at zero, to the network's vector. The column is of `loader=buckets`. Without it, as in
    validations, evaluations and samples of the usual size, an image is a whole square of `image_size`.

    Source: SDXL (Podell et al. 2023, arXiv 2307.01952), section 2.2 and 2.3.

    Args:
        features: of each number; even, at least 4.
        image_size: the side of the square images; handed in.
        dim: the size of the network's vectors; handed in.

    Raises:
        OptionError: when `features` is odd.
    """

    inputs = optional = frozenset({SIZE})

    def __init__(self, features: Annotated[int, Ge(4)], image_size: int, dim: int) -> None:
        super().__init__()
        if features % 2:
            raise OptionError("features", f"is {features}; allowed: an even number, at least 4")
        self.features = features
        self.image_size = image_size
        self.first = nn.Linear(NUMBERS * features, dim)
        self.last = zero(nn.Linear(dim, dim))

    @property
    def has_null(self) -> bool:
        """See `Condition`: guidance has the size on both sides."""
        return False

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """Embed `cond["size"]`, (B, 6), see `langevin.data.buckets.told`.

        Raises:
            UserError: when it is of another shape.
        """
        weight = self.first.weight
        told = (cond or {}).get(SIZE)
        if told is None:
            told = whole(self.image_size, self.image_size, weight.device).expand(batch, -1)
        if told.shape != (batch, NUMBERS):
            raise UserError(f"size: the shape {tuple(told.shape)} does not fit: {(batch, NUMBERS)}")
        waves = sinusoidal_embedding(told.flatten(), self.features).reshape(batch, -1)
        return Context(vector=self.last(functional.silu(self.first(waves.to(weight)))))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: as it is."""
        return dict(cond)


def whole(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """What is told of an image that was never resized nor cropped: float32 (1, 6)."""
    return torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=device)
