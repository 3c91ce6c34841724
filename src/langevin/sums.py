"""Metrics made of sums, exact under any number of processes and any batch size."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class SumStateMetric(Metric):
    """A torchmetrics metric whose every state is a sum over processes: of float64 or of integers.

    So the result does not depend on the order of images, batches and processes, and a process without images adds
    zero.
    """

    def __init__(self) -> None:
        # With torchmetrics' cache, a process that saw no image since its last compute would skip the collectives.
        super().__init__(compute_with_cache=False)

    def _add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Add a state of zeros."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _accumulate(self, **values: Any) -> None:
        """Add values, tensors or numbers, to the states of their names."""
        for name, value in values.items():
            total: Tensor = getattr(self, name)
            # Not in place: a state made under Lightning's inference mode could not be changed outside of it.
            setattr(self, name, total + value)
