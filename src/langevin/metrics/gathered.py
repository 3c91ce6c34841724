"""What is gathered of many images' features, exactly, under any number of processes and any batch size."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from langevin.metrics.halves import add_outer
from langevin.sums import SumStateMetric

ROWS = 1024
"""Images whose outer products are added at once: with 64, memory traffic of the sum would dominate."""


class RowMetric(SumStateMetric):
    """A metric that keeps rows of its images too, which `compute` gets from all processes, unordered."""

    def __init__(self) -> None:
        super().__init__()
        self._no_rows: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        for name in self._no_rows:
            self._clear_rows(name)

    def _add_rows(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        """Add a list state of tensors (any number of rows, *shape), which the processes join into one."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._no_rows[name] = torch.empty(0, *shape, dtype=dtype)
        self._clear_rows(name)

    def _clear_rows(self, name: str) -> None:
        # Never an empty list, for which torchmetrics would send others a tensor of another shape and type.
        setattr(self, name, [self._no_rows[name].to(self.device)])

    def _rows(self, name: str) -> Tensor:
        """All rows of a list state; within `compute`, those of all processes."""
        return dim_zero_cat(getattr(self, name))


class Gaussian(NamedTuple):
    """The Gaussian fitted to features.

    Attributes:
        number: of images.
        mean: float64 (D,).
        covariance: float64 (D, D), unbiased (divided by number - 1).
    """

    number: int
    mean: Tensor
    covariance: Tensor


class Moments(RowMetric):
    """Number, mean and covariance of features, summed in float64; its memory does not grow with their number.

    Args:
        size: D, the number of features.
    """

    count: Tensor
    sum: Tensor
    outer: Tensor
    recent: list[Tensor]

    def __init__(self, size: int) -> None:
        super().__init__()
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("sum", size)
        self._add_sum("outer", size, size)
        self._add_rows("recent", size)  # fewer than ROWS, not in the sums yet

    def update(self, features: Tensor) -> None:
        """Count in features (B, D)."""
        self.recent.append(features)
        self._accumulate(count=len(features))
        if sum(map(len, self.recent)) >= ROWS:
            rows = self._rows("recent").double()
            self._clear_rows("recent")
            self._accumulate(sum=rows.sum(0))
            add_outer(self.outer, rows)

    def compute(self) -> Gaussian:
        """Fit the Gaussian; of fewer than two images its covariance is nan."""
        rows = self._rows("recent").double()
        outer = self.outer.clone()
        add_outer(outer, rows)
        mean = (self.sum + rows.sum(0)) / self.count
        centred = symmetric(outer) - self.count * torch.outer(mean, mean)
        return Gaussian(int(self.count), mean, centred / (self.count - 1))


class Rows(RowMetric):
    """A row for each image, such as its features, in the images' order.

    Each process keeps those of its part (410 MB for Inception's float32 features of 50,000 images) on its device; for
    `compute`, every process gathers them all.

    Args:
        *shape: of a row.
        dtype: of its numbers.
    """

    rows: list[Tensor]
    index: list[Tensor]

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._add_rows("rows", *shape, dtype=dtype)
        self._add_rows("index", dtype=torch.int64)

    def update(self, rows: Tensor, index: Tensor) -> None:
        """Keep rows (B, *shape) and the number of each one's image (B,)."""
        self.rows.append(rows.to(self.device))
        self.index.append(index.to(self.device))

    def compute(self) -> Tensor:
        """Put them in order: (N, *shape).

        Raises:
            RuntimeError: when an image is missing or was counted in twice.
        """
        index, order = self._rows("index").sort()
        if not torch.equal(index, torch.arange(len(index), device=index.device)):
            raise RuntimeError("some images were counted in twice, and others not at all")
        return self._rows("rows")[order]


def gaussian_of(features: Tensor) -> Gaussian:
    """The Gaussian fitted to features (N, D), N at least 2, on their device."""
    mean = features.mean(0, dtype=torch.float64)
    return Gaussian(len(features), mean, symmetric(outer_of(features, mean)) / (len(features) - 1))


def outer_of(features: Tensor, centre: Tensor) -> Tensor:
    """The sum of the outer products of features (N, D) about a centre, float64 (D,).

    Returns:
        Its lower triangle, float64 (D, D); the upper one is undefined.
    """
    outer = torch.zeros(len(centre), len(centre), dtype=torch.float64, device=features.device)
    for rows in features.split(ROWS):
        add_outer(outer, rows.double() - centre)
    return outer


def symmetric(lower: Tensor) -> Tensor:
    """The symmetric matrix with this lower triangle."""
    return lower.tril() + lower.tril(-1).T
