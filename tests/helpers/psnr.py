"""A metric of a user's own that compares each sample with its target."""

import torch
from torch import Tensor

from langevin.metrics.base import Columns, Plan, SampleMetric


class PSNR(SampleMetric):
    """Peak signal-to-noise ratio in dB, mean over the samples."""

    needs = ("target",)
    higher_is_better = True

    def __init__(self, peak: float = 255.0) -> None:
        super().__init__()
        self.peak = peak

    def begin(self, plan: Plan) -> None:
        """Add the sums."""
        super().begin(plan)
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("total")

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Add the samples' ratios."""
        error = (samples["stored"].double() - target.double()).square().flatten(1).mean(1)
        self._accumulate(count=len(index), total=(10 * torch.log10(self.peak**2 / error)).sum())

    def compute(self) -> dict[str, Tensor]:
        """The mean."""
        self._require_all(self.count)
        return {"psnr": self.total / self.count}
