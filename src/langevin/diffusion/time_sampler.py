"""Where the times of training come from."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.schedules.schedule import Schedule


class TimeSampler(ABC):
    """Draws the times that a batch is trained at, from torch's global CPU generator."""

    @abstractmethod
    def sample(self, n: int, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Draw `n` times.

        Returns:
            t: float64 (n,) on the CPU, in (0, t_max].
            importance: float64 (n,), what each loss is multiplied by so that its mean estimates that of uniform times.
        """


class Uniform(TimeSampler):
    """Every time equally often: {1, ..., T}, or (0, t_max] in continuous time."""

    def sample(self, n: int, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """See `TimeSampler`."""
        if schedule.num_steps is None:
            t = (1 - torch.rand(n, dtype=torch.float64)) * schedule.t_max
        else:
            t = torch.randint(1, schedule.num_steps + 1, (n,)).double()
        return t, torch.ones_like(t)
