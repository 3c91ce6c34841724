"""A schedule that is made of another."""

from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import Schedule


class Wrapped(Schedule):
    """Another schedule as it is; a subclass changes what it wants to.

    Args:
        schedule: the other.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.t_max = schedule.t_max
        self.t_min = schedule.t_min
        self.num_steps = schedule.num_steps

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        return self.schedule(t)

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        return self.schedule.rate(t)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        return self.schedule.time_of(ratio)

    @property
    def prior_std(self) -> float:
        """See `Schedule`."""
        return self.schedule.prior_std

    def norm(self, level: Level) -> Tensor:
        """See `Schedule`."""
        return self.schedule.norm(level)

    def tangent(self, level: Level) -> Level:
        """See `Schedule`."""
        return self.schedule.tangent(level)

    def clock(self, t: Tensor) -> Tensor:
        """See `Schedule`."""
        return self.schedule.clock(t)


class Until(Wrapped):
    """The beginning of another schedule, up to a time: for walks that do not start from noise alone.

    Args:
        schedule: the other.
        t_max: where it ends, in (t_min, t_max] of the other; whole where that has steps.
    """

    def __init__(self, schedule: Schedule, t_max: float) -> None:
        super().__init__(schedule)
        self.t_max = t_max
        self.num_steps = None if schedule.num_steps is None else round(t_max)
