"""Means over the images of all processes, exact for any number of them."""

from collections.abc import Mapping

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor


class ImageMeans:
    """Float64 sums of terms over images, and the number of the images; reduced over processes once, at the end.

    Lightning's means are not used: it averages the number of images over the processes and cuts that to an integer, so
    that 297 images on two processes count as 296 (pytorch-lightning #21859).
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._totals: Tensor | None = None  # the number of images, then the sums; float64 (1 + terms,)

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add a batch.

        Args:
            terms: one value an image, (B,), the same names in every batch.
        """
        values = torch.stack([in_float64(term.detach()) for term in terms.values()])
        totals = torch.cat([torch.ones_like(values[:1]), values]).sum(1)
        self._names = list(terms)
        self._totals = totals if self._totals is None else self._totals + totals

    def compute(self, strategy: Strategy) -> dict[str, Tensor]:
        """The means over all processes, float64 () on the CPU; every process must call it, and gets the same values.

        A process without images cannot know the names of the terms: the first process, which has the first image, sends
        them.
        """
        names = strategy.broadcast(self._names)
        totals = self._totals
        if totals is None:
            totals = in_float64(torch.zeros(1 + len(names), device=strategy.root_device))
        totals = torch.as_tensor(strategy.reduce(totals.clone(), reduce_op="sum")).cpu()  # reduces in place
        return dict(zip(names, totals[1:] / totals[0], strict=True))


def in_float64(values: Tensor) -> Tensor:
    """Values as float64; on the CPU where their device has no such numbers."""
    return (values.cpu() if values.device.type == "mps" else values).double()
