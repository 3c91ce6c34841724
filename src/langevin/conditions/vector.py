"""Feature vectors."""

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from langevin.conditions.condition import Condition, Context
from langevin.errors import UserError


class Vector(Condition):
    """A feature vector of each image through two linear layers with SiLU between, and a learned vector for "none".

    In training, vectors are dropped at random, as labels are by `ClassLabel`.

    A source of data supplies the vectors as a column of that name.

    Args:
        size: length of the feature vectors.
        dropout: probability that a vector is dropped in training; 0 where guidance is not wanted.
        dim: size of the embedding; handed in by the network.
    """

    inputs = frozenset({"vector"})

    def __init__(
        self, size: Annotated[int, Ge(1)], dropout: Annotated[float, Ge(0), Le(1)], dim: Annotated[int, Ge(1)]
    ) -> None:
        super().__init__()
        self.size = size
        self.dropout = dropout
        self.embed = nn.Sequential(nn.Linear(size, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.none = nn.Parameter(torch.zeros(dim))

    def forward(self, cond: Mapping[str, Tensor] | None, batch: int) -> Context:
        """Embed `cond["vector"]`, (B, size) floating point, a row of NaN meaning "none", as is None for all.

        Raises:
            UserError: when the vectors have another length.
        """
        if cond is None:
            return Context(vector=self.none.expand(batch, -1))
        vector = cond["vector"].to(self.none)
        if vector.shape != (batch, self.size):
            allowed = f"({batch}, {self.size}), a vector for each image"
            raise UserError(f"vector: the shape {tuple(vector.shape)} does not fit: {allowed}")
        # A single NaN does not mean "none": it is a mistake that must show.
        absent = vector.isnan().all(dim=1)
        # What is absent must not reach the layers: NaN times the gradient 0 is NaN.
        embedded = self.embed(vector.masked_fill(absent[:, None], 0))
        return Context(vector=torch.where(absent[:, None], self.none.to(embedded.dtype), embedded))

    def null(self, cond: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Condition`: every vector becomes NaN."""
        return {**cond, "vector": torch.full_like(cond["vector"], math.nan)}
