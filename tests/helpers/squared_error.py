"""A metric of a user's own that compares each sample with its target."""

import torch
from torch import Tensor

from langevin.metrics.base import Columns, Plan, SampleMetric


class SquaredError(SampleMetric):
    """Mean squared error of numbers up to `peak`, mean over the samples."""

    needs = ("target",)
    higher_is_better = False

    def __init__(self, peak: float = 255.0) -> None:
        super().__init__()
        self.peak = peak

    def begin(self, plan: Plan) -> None:
        """Add the sums."""
        super().begin(plan)
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("total")

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Add the samples' errors."""
        error = (samples["stored"].double() - target.double()) / self.peak
        self._accumulate(count=len(index), total=error.square().flatten(1).mean(1).sum())

    def compute(self) -> dict[str, Tensor]:
        """The mean."""
        self._require_all(self.count)
        return {"squared_error": self.total / self.count}
