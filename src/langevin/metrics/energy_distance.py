"""The energy distance."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.metrics.base import Columns, Plan, SampleMetric
from langevin.metrics.gathered import Rows

BLOCK = 1024
"""Points of either set whose distances are in memory at once, 8 MB."""


class EnergyDistance(SampleMetric):
    """Energy distance of the samples and the reference themselves, not of features; lower is better.

    ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with the Euclidean distance, by the unbiased estimator, in float64: 0 for
    equal distributions alone, so that an estimate may fall below 0 (see `energy_distance`). Pixels count in
    [-1, 1], numbers of vectors as they are. Reported as ``energy_distance@N``. Its time grows with the square of the
    number of samples, and with their dimensions: it is for vectors and small images.

    Args:
        max_reference: how many samples of the reference to compare with, at least 2: these are evenly spaced over it;
            all, where there are fewer.
    """

    reports = ("energy_distance@N",)
    higher_is_better = False

    samples: Rows

    def __init__(self, max_reference: Annotated[int, Ge(2)] = 10_000) -> None:
        super().__init__()
        self.max_reference = max_reference

    def check(self, plan: Plan) -> None:
        """Refuse fewer than two samples, or reference samples, see the base class."""
        plan.reference.require_samples("energy_distance")
        for name, number in plan.counts():
            if number is not None and number < 2:
                raise UserError(f"{name}={number} is too few for metrics.energy_distance: use at least 2")

    def begin(self, plan: Plan) -> None:
        """Keep a part of the reference, and make room for the samples, see the base class."""
        super().begin(plan)
        self.key = f"energy_distance@{plan.num_samples}"
        rows = plan.reference.require_samples("energy_distance")
        number = min(len(rows), self.max_reference)
        # Copied, because torch must not share memory with a read-only memory map.
        self.reference = torch.from_numpy(np.array(rows[np.arange(number) * len(rows) // number]))
        self.samples = Rows(*self.reference.shape[1:], dtype=self.reference.dtype)

    def update(self, samples: Columns, cond: Columns, index: Tensor, target: Tensor | None = None) -> None:
        """Keep the samples and the number of each, see the base class."""
        # The reference has its channels last; a vector has nothing else.
        self.samples.update(samples["stored"].movedim(1, -1), index)

    def compute(self) -> dict[str, Tensor]:
        """Return the distance, see the base class."""
        samples: Tensor = self.samples.compute()
        self._require_all(len(samples))
        return {self.key: energy_distance(_points(samples), _points(self.reference.to(samples.device)))}


def _points(samples: Tensor) -> Tensor:
    """Samples (N, ...) as float64 (N, D): bytes, which are the levels of pixels, in [-1, 1]."""
    points = samples.flatten(1).double()
    return points / 127.5 - 1 if samples.dtype == torch.uint8 else points


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of ``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` (Szekely and Rizzo 2013, section 2), in blocks.

    Args:
        x: float64 (N, D), N at least 2.
        y: float64 (M, D), M at least 2.

    Returns:
        A float64 scalar. Of two sets of one distribution its mean is 0, so that it may be below.
    """
    return 2 * _mean_distance(x, y) - _mean_within(x) - _mean_within(y)


def _mean_distance(x: Tensor, y: Tensor) -> Tensor:
    total = x.new_zeros(())
    for rows in stop_on_signal(x.split(BLOCK)):
        for columns in y.split(BLOCK):
            total += _sum_of_distances(rows, columns)
    return total / (len(x) * len(y))


def _mean_within(x: Tensor) -> Tensor:
    # Of two different points.
    blocks, total = x.split(BLOCK), x.new_zeros(())
    for i, rows in enumerate(stop_on_signal(blocks)):
        total += _sum_of_distances(rows, rows)
        for columns in blocks[i + 1 :]:
            total += 2 * _sum_of_distances(rows, columns)
    return total / (len(x) * (len(x) - 1))


def _sum_of_distances(x: Tensor, y: Tensor) -> Tensor:
    # By differences: by products, the distance of near points would be lost to rounding.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").sum()
