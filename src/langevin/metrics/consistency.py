"""Whether restored samples agree with what was measured."""

from typing import Any, Protocol

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.paired import PairedMetric


class Measuring(Protocol):
    """What of a linear operator is needed here, see `langevin.restoration.operators.operator.Operator`."""

    def measured(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one measurement."""

    def __call__(self, x: Tensor) -> Tensor:
        """The measurements of samples."""

    def record(self) -> dict[str, Any]:
        """What it is, for a protocol."""


class Consistency(PairedMetric):
    """How far what is measured of each image is from what is measured of its target, mean over the images.

    The root mean square of ``A x - A x_target`` over the numbers of a measurement, of each image by itself, in its
    stored levels (0 to 255); lower is better. The numbers that are 0 whatever the image, such as the unknown pixels of
    a mask, do not count. The target is the image itself, before any noise of a measurement. 0 for exact copies; where
    A is exactly restored, what is left is the rounding to whole levels, at most about 0.3 of a level. Reported as
    ``consistency``.

    Args:
        operator: A.
    """

    reports = ("consistency",)
    higher_is_better = False

    name = "consistency"

    def __init__(self, operator: Measuring) -> None:
        super().__init__()
        self.operator = operator

    def record(self) -> dict[str, Any]:
        """What is measured, see the base class."""
        return {"operator": self.operator.record()}

    def check(self, plan: Plan) -> None:
        """Refuse images that the operator does not suit, or of which it measures nothing; see the base class."""
        shape = plan.require_pairs(self.name)
        self.operator.measured(shape)
        if not self._counting(shape):
            raise UserError("metrics.consistency: nothing is measured of these images; drop it, or change operators")

    def begin(self, plan: Plan) -> None:
        """Count the numbers of a measurement, see the base class."""
        super().begin(plan)
        self.number = self._counting(plan.require_pairs(self.name))

    def of_pairs(self, samples: Tensor, targets: Tensor) -> Tensor:
        """The root mean squares, float64, see the base class."""
        gap = self.operator(samples.double() - targets.double())
        return (gap.square().flatten(1).sum(1) / self.number).sqrt()

    def _counting(self, shape: tuple[int, ...]) -> int:
        """How many numbers of a measurement depend on the image (C, H, W)."""
        anything = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return int(self.operator(anything).count_nonzero())
