"""The times a sampler visits."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError, UserError


class TimestepSpacing(ABC):
    """Chooses the times at which the denoiser is called, and the time at which a walk ends."""

    def __call__(self, schedule: Schedule, steps: int | None) -> Tensor:
        """The times from the noisiest down to the end.

        Args:
            schedule: the noise schedule.
            steps: how many steps to take; None for every one of a discrete schedule.

        Returns:
            float64 (steps + 1,), falling to `end`; whole numbers for a discrete schedule.

        Raises:
            UserError: when the schedule has fewer steps than asked for, or none to count.
        """
        if steps is None:
            if schedule.num_steps is None:
                raise OptionError("sampler.steps", "is null; a schedule in continuous time needs a number")
            steps = schedule.num_steps
        if steps < 1 or (schedule.num_steps is not None and steps > schedule.num_steps):
            most = "" if schedule.num_steps is None else f" and at most the schedule's {schedule.num_steps}"
            raise OptionError("sampler.steps", f"is {steps}; allowed: at least 1{most}")
        times = self.times(schedule, steps)
        if schedule.num_steps is not None:
            times = apart(torch.round(times), schedule.num_steps)
        return torch.cat([times, times.new_tensor([self.end(schedule)])])

    def end(self, schedule: Schedule) -> float:
        """The time that the last step leads to: 0, the data."""
        return 0.0

    def chosen(self, own: "TimestepSpacing") -> "TimestepSpacing":
        """This timestep spacing, or where it leaves the choice to the sampler, the sampler's `own`."""
        return self

    @abstractmethod
    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """The `steps` times at which the denoiser is called: float64, falling, all above 0.

        With a discrete schedule they are rounded, and neighbours that become one time are moved apart.
        """


class UniformSpacing(TimestepSpacing):
    """Equal steps from the very last time to the first that a model is trained on, both included ("linspace")."""

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`."""
        return torch.linspace(schedule.t_max, schedule.t_min, steps, dtype=torch.float64)


class Trailing(TimestepSpacing):
    """Equal steps from the very last time to the data. Source: Lin et al. 2023 (arXiv 2305.08891), table 2."""

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`."""
        return schedule.t_max * torch.arange(steps, 0, -1, dtype=torch.float64) / steps


class Leading(TimestepSpacing):
    """Every (T // steps)-th time of a discrete schedule, from 1 up. Source: DDIM (Song et al. 2021), appendix D.2.

    The noisiest times are left out: of T = 1000 in 50 steps, those above 981. It is diffusers' default.

    Args:
        offset: is added to all times at which the denoiser is called. Source: diffusers' `steps_offset`.
        stop_at_first: the last step leads to the schedule's first time, at which what is left of the noise counts as
            data, instead of the data. Source: diffusers' `set_alpha_to_one=False`. Without an offset, the denoiser is
            called at that time already, and the last step has no length.
    """

    def __init__(self, offset: Annotated[int, Ge(0)] = 0, stop_at_first: bool = False) -> None:
        self.offset = offset
        self.stop_at_first = stop_at_first

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`.

        Raises:
            UserError: for a schedule in continuous time, or when the offset leads beyond its last step.
        """
        if schedule.num_steps is None:
            raise UserError("needs a schedule with discrete steps; take timestep_spacing=trailing")
        first = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * (schedule.num_steps // steps) + 1
        if first[0] + self.offset > schedule.num_steps:
            most = schedule.num_steps - int(first[0])
            allowed = f"at most {most} with {steps} of the schedule's {schedule.num_steps} steps, or fewer steps"
            raise OptionError("offset", f"is {self.offset}; allowed: {allowed}")
        return first + self.offset

    def end(self, schedule: Schedule) -> float:
        """See `TimestepSpacing`."""
        return schedule.t_min if self.stop_at_first else 0.0


class QuadraticSpacing(TimestepSpacing):
    """Steps that shrink towards the data: times grow as a square and end at the last.

    Source: DDIM (Song et al. 2021), appendix D.2, which used it for CIFAR-10.
    """

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`."""
        fraction = torch.arange(steps, 0, -1, dtype=torch.float64) / steps
        return schedule.t_max * fraction.square()


class Karras(TimestepSpacing):
    """``(sigma / alpha)^(1 / rho)`` falls in equal steps, from the last level to the first, both included.

    Source: EDM (Karras et al. 2022), equation 5.

    Args:
        rho: the exponent; a larger one takes shorter steps near the data.
        sigma_min: the least ``sigma / alpha`` visited; None for that of the schedule's first time.
        sigma_max: the greatest; None for that of its last.
    """

    def __init__(
        self,
        rho: Annotated[float, Gt(0)] = 7.0,
        sigma_min: Annotated[float, Gt(0)] | None = None,
        sigma_max: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        if sigma_min is not None and sigma_max is not None and sigma_max <= sigma_min:
            raise OptionError("sigma_max", f"is {sigma_max}; allowed: above sigma_min ({sigma_min})")
        self.rho, self.sigma_min, self.sigma_max = rho, sigma_min, sigma_max

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`.

        Raises:
            UserError: when `sigma_min` or `sigma_max` lies beyond the schedule's levels, or those have no end.
        """
        least, most = ends(schedule)
        for name, sigma in (("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)):
            if sigma is not None and not least <= sigma <= most:
                raise OptionError(name, f"is {sigma}; allowed: the schedule's {least:.6g} to {most:.6g}")
        most = most if self.sigma_max is None else torch.full_like(most, self.sigma_max)
        least = least if self.sigma_min is None else torch.full_like(least, self.sigma_min)
        roots = most ** (1 / self.rho), least ** (1 / self.rho)
        fraction = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
        return schedule.time_of(torch.lerp(*roots, fraction) ** self.rho).clamp(schedule.t_min, schedule.t_max)


class LogSNR(TimestepSpacing):
    """logSNR rises in equal steps, from the last level to the first, both included.

    Source: DPM-Solver (Lu et al. 2022), section 3.4.
    """

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`."""
        first, last = (float(torch.log(ratio)) for ratio in ends(schedule))
        ratios = torch.exp(torch.linspace(last, first, steps, dtype=torch.float64))
        return schedule.time_of(ratios).clamp(schedule.t_min, schedule.t_max)


class InnerLogSNR(TimestepSpacing):
    """One long step through the noise, equal steps in logSNR where the image takes shape, one step to the data.

    Where ``sigma / alpha`` is far above the data's own scale, the denoiser's prediction hardly changes; far below, the
    image hardly does. Steps that are equal in logSNR from the very last level on, which may be infinite, are wasted
    there; solvers of higher order, whose polynomials span several steps, then become unstable. The two ends move
    outwards as there are more steps, so that every solver keeps its order. The bounds were chosen on mixtures of
    Gaussians at the scale of images in [-1, 1] (`tests/samplers/test_auto_grid.py`).

    Args:
        sigma_max: the ``sigma / alpha`` that the first step leads to; None: ``max(4, steps / 4)``. Levels of the
            schedule that are all below are stepped through evenly.
        sigma_min: the ``sigma / alpha`` that the last step leaves from; None: ``0.24 / steps``. It is never below that
            of the schedule's first time.

    Raises:
        UserError: when `sigma_max` is not above `sigma_min`.
    """

    def __init__(
        self, sigma_max: Annotated[float, Gt(0)] | None = None, sigma_min: Annotated[float, Gt(0)] | None = None
    ) -> None:
        if sigma_min is not None and sigma_max is not None and sigma_max <= sigma_min:
            raise OptionError("sigma_max", f"is {sigma_max}; allowed: above sigma_min ({sigma_min})")
        self.sigma_max, self.sigma_min = sigma_max, sigma_min

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`."""
        first, last = (schedule(torch.tensor(t, dtype=torch.float64)).ratio for t in (schedule.t_min, schedule.t_max))
        most = last.clamp(max=self.sigma_max or max(4.0, steps / 4))
        least = torch.minimum(first.clamp(min=self.sigma_min or 0.24 / steps), most)
        jump = [schedule.t_max] if most < last else []
        logs = torch.linspace(float(most.log()), float(least.log()), steps - len(jump), dtype=torch.float64)
        inner = schedule.time_of(logs.exp()).clamp(schedule.t_min, schedule.t_max)
        return torch.cat([inner.new_tensor(jump), inner])


class Auto(TimestepSpacing):
    """The timestep spacing that suits the sampler and the schedule: the sampler's own, see `Sampler.own_spacing`."""

    def chosen(self, own: TimestepSpacing) -> TimestepSpacing:
        """See `TimestepSpacing`."""
        return own

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`; without a sampler, `even`."""
        return even(schedule).times(schedule, steps)


class ExplicitSpacing(TimestepSpacing):
    """A list of times, on the schedule's own clock.

    Args:
        times: falling, all above 0; the data, at 0, comes after the last.

    Raises:
        UserError: when they do not fall, or leave the clock.
    """

    def __init__(self, times: list[float]) -> None:
        if not times or not all(early > late for early, late in pairwise([*times, 0.0])):
            raise OptionError("times", f"is {times}; allowed: falling numbers above 0")
        self.list = times

    def __call__(self, schedule: Schedule, steps: int | None) -> Tensor:
        """See `TimestepSpacing`.

        Raises:
            UserError: when `steps` is another number than that of the list.
        """
        if steps not in (None, len(self.list)):
            text = f"is {steps}; allowed: {len(self.list)}, as timestep_spacing.times has, or null"
            raise OptionError("sampler.steps", text)
        return super().__call__(schedule, len(self.list))

    def times(self, schedule: Schedule, steps: int) -> Tensor:
        """See `TimestepSpacing`."""
        if self.list[0] > schedule.t_max:
            raise OptionError("times", f"is {self.list}; allowed: at most the schedule's {schedule.t_max:g}")
        return torch.tensor(self.list, dtype=torch.float64)


def even(schedule: Schedule) -> TimestepSpacing:
    """The timestep spacing of samplers of first order: equal steps in time, or EDM's where noise is the clock."""
    alpha = schedule(torch.tensor(schedule.t_max, dtype=torch.float64)).alpha
    return Karras() if alpha == 1 else Trailing()


def ends(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The ratio ``sigma / alpha`` at the schedule's first and last time.

    Raises:
        UserError: when the last is infinite, so that it cannot be stepped down from evenly.
    """
    first, last = (schedule(torch.tensor(t, dtype=torch.float64)).ratio for t in (schedule.t_min, schedule.t_max))
    if last.isinf():
        raise UserError("needs a trace of signal at the schedule's last time; take timestep_spacing=trailing")
    return first, last


def apart(times: Tensor, num_steps: int) -> Tensor:
    """Falling whole numbers in {1, ..., num_steps} that are near `times`: the largest move is the least there can be.

    Args:
        times: whole numbers, none later than the one before it; some may be equal.
        num_steps: the last time that is allowed; there are no more `times` than this.
    """
    # With their index added, times that fall by at least 1 are times that do not rise; the nearest such sequence lies
    # halfway between the running minimum from the left and the running maximum from the right.
    index = torch.arange(len(times), dtype=torch.float64)
    times = times + index
    below, above = torch.cummin(times, 0).values, torch.cummax(times.flip(0), 0).values.flip(0)
    return torch.ceil((below + above) / 2).clamp(len(times), num_steps) - index
