"""Vectors of real numbers."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from langevin.images import Figure
from langevin.modalities.modality import Modality
from langevin.modalities.scatter import limit_of, panels, scatter


class VectorModality(Modality):
    """Vectors (B, D) of real numbers, float32, which a model takes as they are."""

    noun = "vectors"
    previewed = traced = 10_000  # a scatter plot shows them all together

    def to_model(self, stored: Tensor) -> Tensor:
        """See `Modality`."""
        return stored

    def from_model(self, x: Tensor) -> Tensor:
        """See `Modality`."""
        return x.float()

    def preview(self, samples: Tensor, columns: int, classes: Sequence[str] | None = None) -> Figure:
        """See `Modality`: a scatter plot of them all, see `scatter`; without labels."""
        return Figure(scatter(samples.cpu().numpy()))

    def strips(
        self,
        x_t: Sequence[Tensor],
        x: Sequence[Tensor],
        finished: Tensor,
        times: Sequence[str] = (),
        classes: Sequence[str] | None = None,
    ) -> Figure:
        """See `Modality`: scatter plots of x_t, below them of the predicted x, the finished samples at the end of both.

        They have no labels.
        """
        limit = limit_of(finished.numpy())
        rows = [panels([frame.numpy() for frame in [*frames, finished]], limit) for frames in (x_t, x)]
        return Figure(np.concatenate(rows))
