"""The Kernel Inception Distance."""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.errors import UserError
from langevin.interrupt import stop_on_signal
from langevin.metrics.base import FeatureSetMetric, Plan

BLOCK = 128
"""Rows of a kernel that are worked on at once: 1 MB of a subset of 1,000 images, which stays in a core's cache."""


class KernelDistance(FeatureSetMetric):
    r"""Squared maximum mean discrepancy of the features of the samples and of the reference; lower is better.

    With the kernel ``(x . y / D + 1)^3``, by the unbiased estimator, which has the same mean for any number of images
    and may fall below 0 (Binkowski et al. 2018, arXiv 1801.01401, section 3): the mean over random subsets, each drawn
    without replacement from both sets, and the standard deviation over them (ddof 0), in float64. The draws are
    torch-fidelity's. Reported as ``kid@N`` and ``kid_std@N`` on the official Inception weights, else as
    ``kd_<extractor>@N`` and ``kd_std_<extractor>@N``. Constant sets are fine: equal ones have a distance of 0.

    Args:
        subsets: number of subsets, at least 1.
        subset_size: images of each set in a subset, at least 2 and at most the number of samples and of reference
            images.
        seed: of the draws, in [0, 2^32).
    """

    reports = ("kid@N", "kd_*@N", "kid_std@N", "kd_std_*@N")
    higher_is_better = False

    def __init__(
        self,
        subsets: Annotated[int, Ge(1)] = 100,
        subset_size: Annotated[int, Ge(2)] = 1000,
        seed: Annotated[int, Ge(0), Le(4294967295)] = 2020,
    ) -> None:
        super().__init__()
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed

    def check(self, plan: Plan) -> None:
        """Refuse a subset larger than either set, see the base class."""
        for name, number in plan.counts():
            if number is not None and number < self.subset_size:
                raise UserError(
                    f"{name}={number} is too few for metrics.kid.subset_size={self.subset_size}, drawn without "
                    "replacement: use more images or a smaller subset_size (at least 2)"
                )

    def begin(self, plan: Plan) -> None:
        """Name the values, see the base class."""
        super().begin(plan)
        self.keys = [plan.key("kid", "kd"), plan.key("kid_std", "kd_std")]

    def compute(self) -> dict[str, Tensor]:
        """Return the mean over the subsets and the standard deviation, see the base class."""
        samples, reference = self._sets()
        rng = np.random.RandomState(self.seed)
        values = []
        for _ in stop_on_signal(range(self.subsets)):
            x, y = (
                features[torch.from_numpy(rng.choice(len(features), self.subset_size, replace=False))].double()
                for features in (samples, reference)
            )
            values.append(squared_mmd(x, y))
        distances = torch.stack(values)
        return dict(zip(self.keys, (distances.mean(), distances.std(correction=0)), strict=True))


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy for the kernel ``(x . y / D + 1)^3``.

    Args:
        x: float64 (m, D), m at least 2.
        y: float64 (n, D), n at least 2.

    Returns:
        A float64 scalar (Binkowski et al. 2018, equation 4).
    """
    return _mean_over_pairs(x) + _mean_over_pairs(y) - 2 * _sum(x, y) / (len(x) * len(y))


def _mean_over_pairs(x: Tensor) -> Tensor:
    # Of two different images. The kernel is symmetric: each block of rows needs the columns up to its end only.
    size, total = len(x), x.new_zeros(())
    for start in range(0, size, BLOCK):
        rows = x[start : start + BLOCK]
        square = _kernel(rows, rows)
        total += 2 * _kernel(rows, x[:start]).sum() + square.sum() - square.trace()
    return total / (size * (size - 1))


def _sum(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([_kernel(rows, y).sum() for rows in x.split(BLOCK)]).sum()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)
