"""What the metrics of samples with targets have in common."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from langevin.metrics.base import Columns, Plan, SampleMetric


class PairedMetric(SampleMetric):
    """The mean over the samples of a number for each sample and its target, images both; of any number of them.

    A subclass implements `of_pairs`.

    Attributes:
        name: what it is called, in the config and in messages.
        key: the name of its value; its `name`, unless that does not tell all.
    """

    needs = ("target",)

    name: ClassVar[str]
    key: str
    count: Tensor
    total: Tensor

    def check(self, plan: Plan) -> None:
        """Refuse samples that are no images, see the base class."""
        plan.require_pairs(self.name)

    def begin(self, plan: Plan) -> None:
        """Add the sums, see the base class."""
        super().begin(plan)
        self.key = self.name
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("total")

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Count in the numbers of some samples, see the base class."""
        assert target is not None, "needs"
        self._accumulate(count=len(index), total=self.of_pairs(samples["stored"], target).double().sum())

    @abstractmethod
    def of_pairs(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The number of each pair, (B,), finite.

        Args:
            samples: uint8 (B, C, H, W).
            targets: the same.
        """

    def compute(self) -> dict[str, Tensor]:
        """Return the mean, see the base class."""
        self._require_all(self.count)
        return {self.key: self.total / self.count}
