"""A metric of a user's own that reads the condition."""

import numpy as np
import torch
from torch import Tensor

from langevin.metrics.base import Columns, Plan, SampleMetric


class NearestMean(SampleMetric):
    """Share of the samples that lie nearest to the mean image of the requested class."""

    needs = ("label",)
    higher_is_better = True

    def begin(self, plan: Plan) -> None:
        """Take the means of the reference's classes."""
        super().begin(plan)
        images, labels = plan.reference.require_samples("nearest_mean"), plan.reference.require_labels("nearest_mean")
        means = np.stack([images[labels == label].mean(0) for label in range(labels.max() + 1)])
        self.register_buffer("means", torch.from_numpy(means).permute(0, 3, 1, 2).flatten(1), persistent=False)
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("right", dtype=torch.int64)

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Count."""
        nearest = torch.cdist(samples["stored"].flatten(1).double(), self.means).argmin(1)
        self._accumulate(count=len(index), right=(nearest == cond["label"]).sum())

    def compute(self) -> dict[str, Tensor]:
        """The share."""
        self._require_all(self.count)
        return {"nearest_mean": self.right / self.count}
