"""The times a sampler visits."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError


class TimeGrid(ABC):
    """Chooses the times at which the denoiser is called."""

    def __call__(self, schedule: Schedule, steps: int | None) -> Tensor:
        """The times from the noisiest down to 0.

        Args:
            schedule: whose clock it is.
            steps: how many steps to take; None for every one of a discrete schedule.

        Returns:
            float64 (steps + 1,), falling, the last 0; whole numbers for a discrete schedule.

        Raises:
            UserError: when the schedule has fewer steps than asked for, or none to count.
        """
        if steps is None:
            if schedule.num_steps is None:
                raise UserError("sampler.steps is null; a schedule in continuous time needs a number")
            steps = schedule.num_steps
        if steps < 1 or (schedule.num_steps is not None and steps > schedule.num_steps):
            most = "" if schedule.num_steps is None else f" and at most the schedule's {schedule.num_steps}"
            raise UserError(f"sampler.steps is {steps}; allowed: at least 1{most}")
        times = self.times(schedule, steps)
        if schedule.num_steps is not None:
            times = torch.round(times)
        return torch.cat([times, times.new_zeros(1)])

    @abstractmethod
    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """The `steps` times at which the denoiser is called: float64, falling, all above 0."""


class Uniform(TimeGrid):
    """Equal steps from the very last time down ("trailing"). Source: Lin et al. 2023, table 2."""

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimeGrid`."""
        return schedule.t_max * torch.arange(steps, 0, -1, dtype=torch.float64) / steps


class Leading(TimeGrid):
    """Every (T // steps)-th time of a discrete schedule, from 1 up. Source: DDIM (Song et al. 2021), appendix D.2.

    The noisiest times are left out: of T = 1000 in 50 steps, those above 981. It is diffusers' default.
    """

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimeGrid`.

        Raises:
            UserError: for a schedule in continuous time.
        """
        if schedule.num_steps is None:
            raise UserError("grid=leading needs a schedule with discrete steps; take grid=uniform")
        return torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.num_steps // steps) + 1


class Quadratic(TimeGrid):
    """Steps that shrink towards the data: times grow as a square and end at T.

    Source: DDIM (Song et al. 2021), appendix D.2, which used it for CIFAR-10.
    """

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimeGrid`; in discrete time neighbours that would round to one time are moved apart."""
        fraction = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
        times = schedule.t_max * fraction.square()
        if schedule.num_steps is None:
            return times
        # The k-th time from the end can be no earlier than k.
        return torch.maximum(torch.round(times), torch.arange(steps, 0, -1, dtype=torch.float64))
