"""What every estimate of the likelihood has in common."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.spec import DataSpec
from langevin.sums import SumStateMetric

LEVELS = 256
"""Of a byte."""


class Likelihood(SumStateMetric, ABC):
    """A bound on minus the log-probability of images of bytes, in bits a dimension; lower is better.

    In this order: `check`, which is cheap; `begin`; then any number of rounds of `update` with this process's part of
    the images (possibly none), `compute`, `reset`. What an image adds depends on the image, the model and the
    image's own noise alone, and all that is gathered is a float64 or integer sum: so the value is the same for any
    number of processes and any batch size, but for rounding.

    Attributes:
        parts: the names of what the bound is a sum of.
    """

    parts: ClassVar[tuple[str, ...]]
    higher_is_better = False

    count: Tensor
    total: Tensor

    def check(self, schedule: Schedule) -> None:
        """Check that the estimate is compatible with a model's schedule.

        Raises:
            UserError: when it does not; the message states what is allowed.
        """

    def check_data(self, spec: DataSpec) -> None:
        """Check that the estimate is of such data.

        Args:
            spec: of what is diffused.

        Raises:
            UserError: when it is not.
        """
        if spec.levels != LEVELS:
            raise UserError(f"is of images of {LEVELS} levels, and what is diffused here is not: leave it out")

    def begin(self, schedule: Schedule) -> None:
        """Check, and add the states for models of this schedule, on the CPU; an override calls this first.

        Raises:
            UserError: as `check`.
        """
        self.check(schedule)
        self._add_sum("count", dtype=torch.int64)
        self._add_sum("total", len(self.parts))

    @abstractmethod
    def measure(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> dict[str, Tensor]:
        """The parts of the bound, image by image.

        Args:
            denoise: the model.
            x: images of bytes (B, C, H, W), in [-1, 1].
            cond: what the model is conditioned on.
            draws: the random numbers of exactly these images.

        Returns:
            by the names in `parts`, in nats a dimension: float64 (B,).
        """

    def update(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> None:
        """Count in some images; the arguments are those of `measure`."""
        self._count_in(self.measure(denoise, x, cond, draws))

    def compute(self) -> dict[str, Tensor]:
        """The mean over all images of all processes, in bits a dimension: "bits_per_dim", then its parts."""
        bits = self.total / self.count / math.log(2)
        return {"bits_per_dim": bits.sum()} | dict(zip(self.parts, bits, strict=True))

    def _count_in(self, measured: dict[str, Tensor]) -> None:
        values = torch.stack([measured[name] for name in self.parts])
        self._accumulate(count=values.shape[1], total=values.sum(1))


def per_dim(x: Tensor) -> Tensor:
    """The mean over an image's dimensions: (B, C, H, W) to float64 (B,)."""
    return x.double().flatten(1).mean(1)


def strata(number: int, draws: Draws) -> Iterator[Tensor]:
    """For each of `number` equal parts of [0, 1], one place of each image, uniform in it: float64 (B,) on the CPU.

    They come from the images' own noise, so that they do not depend on the batch either.
    """
    for stratum in range(number):
        yield (stratum + torch.special.ndtr(draws.normal().flatten(1)[:, 0].double().cpu())) / number
