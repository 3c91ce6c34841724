"""Where the times of training come from."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Generator, Tensor

from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError


class TimeSampler(ABC):
    """Draws the times that a batch is trained at.

    All ranks draw the same times, those of the whole batch, and each takes its part: so that a sampler can act on
    the whole batch.

    Attributes:
        loss_aware: whether it uses the losses (`update`).
    """

    loss_aware = False

    @abstractmethod
    def sample(self, n: int, schedule: Schedule, generator: Generator) -> tuple[Tensor, Tensor]:
        """Draw `n` times.

        Returns:
            t: float64 (n,) on the CPU, in [t_min, t_max]; whole numbers for a discrete schedule.
            importance: float64 (n,), what each loss is multiplied by. It makes up for a distribution that is only a
                means to lower the variance of the loss; a distribution that is itself part of the objective, such as
                EDM's, has ones.
        """

    def update(self, t: Tensor, loss: Tensor) -> None:
        """Learn from the losses (n,) at the times `t` (n,) of the whole batch, all on the CPU."""

    def check(self, schedule: Schedule) -> None:
        """Check that it can draw times of this schedule.

        Raises:
            UserError: when it cannot.
        """

    def state_dict(self) -> dict[str, Any]:
        """What it has learnt, for a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class UniformTimes(TimeSampler):
    """Every time equally often: {1, ..., T}, or [t_min, t_max] in continuous time."""

    def sample(self, n: int, schedule: Schedule, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `TimeSampler`."""
        u = torch.rand(n, dtype=torch.float64, generator=generator)
        return spread(u, schedule), torch.ones_like(u)


class Stratified(TimeSampler):
    """Uniform times, evenly spread over the batch: one random offset, then equal distances; in random order.

    Each time alone is uniform, so the loss is unbiased, but a batch covers all noise levels.
    Source: variational diffusion models (Kingma et al. 2021), appendix I.1.
    """

    def sample(self, n: int, schedule: Schedule, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `TimeSampler`."""
        offset = torch.rand((), dtype=torch.float64, generator=generator)
        u = (torch.randperm(n, generator=generator) + offset) / n
        return spread(u, schedule), torch.ones_like(u)


class LossAware(TimeSampler):
    """Each time as often as its loss is large, which lowers the variance of the bound's gradient.

    ``p_t`` is proportional to ``sqrt(E[L_t^2])`` over the last losses at t; each loss counts ``1 / (T p_t)``. Until
    every time has been met often enough, times are uniform. Source: Improved DDPM (Nichol and Dhariwal 2021), section
    3.3.

    Args:
        history: how many losses a time are kept.
        uniform: the share of uniform times that is always mixed in.
    """

    loss_aware = True

    def __init__(self, history: Annotated[int, Ge(1)] = 10, uniform: Annotated[float, Gt(0), Le(1)] = 0.001) -> None:
        self.history = history
        self.uniform = uniform
        self._losses: Tensor | None = None  # (T, history), the newest at position (count - 1) % history
        self._counts: Tensor | None = None  # (T,)

    def probabilities(self, schedule: Schedule) -> Tensor:
        """How often each of the times 1..T is drawn: float64 (T,), adding up to 1."""
        assert schedule.num_steps is not None
        if self._losses is None or self._counts is None:
            self._losses = torch.zeros(schedule.num_steps, self.history, dtype=torch.float64)
            self._counts = torch.zeros(schedule.num_steps, dtype=torch.int64)
        even = torch.full_like(self._losses[:, 0], 1 / schedule.num_steps)
        size = self._losses.square().mean(1).sqrt()
        if int(self._counts.min()) < self.history or not size.any():
            return even
        return (1 - self.uniform) * size / size.sum() + self.uniform * even

    def sample(self, n: int, schedule: Schedule, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `TimeSampler`."""
        probabilities = self.probabilities(schedule)
        index = torch.multinomial(probabilities, n, replacement=True, generator=generator)
        return index.double() + 1, 1 / (len(probabilities) * probabilities[index])

    def update(self, t: Tensor, loss: Tensor) -> None:
        """See `TimeSampler`; losses that are not finite are ignored."""
        assert self._losses is not None
        assert self._counts is not None
        for index, value in zip((t - 1).long().tolist(), loss.double().tolist(), strict=True):
            if abs(value) < float("inf"):
                self._losses[index, self._counts[index] % self.history] = value
                self._counts[index] += 1

    def check(self, schedule: Schedule) -> None:
        """See `TimeSampler`."""
        if schedule.num_steps is None:
            raise UserError(
                "keeps a history for each discrete time, but the schedule is continuous; "
                "set schedule.num_steps, or take another time_sampler"
            )

    def state_dict(self) -> dict[str, Any]:
        """See `TimeSampler`."""
        return {"losses": self._losses, "counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `TimeSampler`."""
        self._losses, self._counts = state["losses"], state["counts"]


class LogNormal(TimeSampler):
    """``log(sigma / alpha)`` is normal. Source: EDM (Karras et al. 2022), table 1.

    Args:
        mean: of the logarithm; EDM's P_mean.
        std: of the logarithm; EDM's P_std.
    """

    def __init__(self, mean: float = -1.2, std: Annotated[float, Gt(0)] = 1.2) -> None:
        self.mean, self.std = mean, std

    def sample(self, n: int, schedule: Schedule, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `TimeSampler`."""
        normal = torch.randn(n, dtype=torch.float64, generator=generator)
        t = schedule.time_of(torch.exp(self.mean + self.std * normal)).clamp(schedule.t_min, schedule.t_max)
        return (t if schedule.num_steps is None else torch.round(t)), torch.ones_like(t)


class LogitNormal(TimeSampler):
    """``logit(t / t_max)`` is normal: times in the middle more often. Source: Esser et al. 2024 (arXiv 2403.03206).

    Args:
        mean: of the logit; above 0, more noise.
        std: of the logit.
    """

    def __init__(self, mean: float = 0.0, std: Annotated[float, Gt(0)] = 1.0) -> None:
        self.mean, self.std = mean, std

    def sample(self, n: int, schedule: Schedule, generator: Generator) -> tuple[Tensor, Tensor]:
        """See `TimeSampler`."""
        u = torch.sigmoid(self.mean + self.std * torch.randn(n, dtype=torch.float64, generator=generator))
        return spread(u, schedule), torch.ones_like(u)


def spread(u: Tensor, schedule: Schedule) -> Tensor:
    """Numbers in [0, 1) as times: onto {1, ..., T}, or [t_min, t_max]."""
    if schedule.num_steps is None:
        return schedule.t_min + u * (schedule.t_max - schedule.t_min)
    return (torch.floor(u * schedule.num_steps) + 1).clamp(max=schedule.num_steps)
