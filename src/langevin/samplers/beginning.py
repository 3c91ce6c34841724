"""Where the sampling of given images begins: at the images with noise, or at the noise that they come from."""

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.process import GaussianProcess
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Until
from langevin.errors import UserError
from langevin.samplers.sampler import Sampler, Start


class Beginning(ABC):
    """Gives images a start, from which a sampler takes them back to images."""

    def walked(self, schedule: Schedule) -> Schedule:
        """The part of a model's schedule that is sampled through."""
        return schedule

    @abstractmethod
    def check(self, sampler: Sampler, schedule: Schedule) -> None:
        """Check that it is compatible with a sampler and a model's schedule.

        Raises:
            UserError: when it is not.
        """

    @abstractmethod
    def __call__(self, sampler: Sampler, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> Start:
        """Where the sampler begins.

        Args:
            sampler: which will continue.
            denoise: the model, guided or not.
            x: the images (B, C, H, W), in [-1, 1].
            cond: what they are conditioned on.
            draws: their random numbers.
        """

    @abstractmethod
    def record(self, images: str) -> dict[str, Any]:
        """What of it decides the samples, as plain values for a protocol; `images` is the digest of the images."""

    def kept(self, start: Start, process: GaussianProcess) -> dict[str, Tensor]:
        """What of a start is of interest beside the samples, by names, (B, ...) each, on the CPU."""
        return {}


class Inversion(Beginning):
    """The noise that images come from, by a deterministic sampler's own inverse."""

    def check(self, sampler: Sampler, schedule: Schedule) -> None:
        """See `Beginning`."""
        if not sampler.invertible:
            raise UserError("needs an invertible sampler: sampler=ddim")

    def __call__(self, sampler: Sampler, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> Start:
        """See `Beginning`."""
        t = sampler.times(denoise.process.schedule)[0]
        return Start(sampler.invert(denoise, x, cond) * denoise.process.prior_std(t), float(t))

    def record(self, images: str) -> dict[str, Any]:
        """See `Beginning`."""
        return {"inverted": images}

    def kept(self, start: Start, process: GaussianProcess) -> dict[str, Tensor]:
        """See `Beginning`: the noise, of unit variance."""
        return {"noise": (start.x_t / process.prior_std(torch.tensor(start.t, dtype=torch.float64))).cpu()}


class SDEdit(Beginning):
    """Images with noise: what is fine is sampled anew, what is coarse remains. Source: SDEdit (Meng et al. 2022).

    Args:
        strength: the noise's share of the standard deviation at the start, ``sigma / sqrt(alpha^2 + sigma^2)``, in
            units of the schedule's last: near 0 the images stay, 1 leaves nothing of them. It does not depend on the
            schedule's clock.
    """

    def __init__(self, strength: Annotated[float, Gt(0), Le(1)] = 0.5) -> None:
        self.strength = strength

    def time(self, schedule: Schedule) -> float:
        """The time of the start; with discrete steps the nearest, at least 1."""
        if self.strength == 1:
            return schedule.t_max
        alpha, sigma = schedule(torch.tensor(schedule.t_max, dtype=torch.float64))
        share = self.strength * float(sigma / torch.hypot(alpha, sigma))
        ratio = torch.tensor(share / math.sqrt(1 - share**2), dtype=torch.float64)
        t = float(schedule.time_of(ratio).clamp(schedule.t_min, schedule.t_max))
        return t if schedule.num_steps is None else float(max(1, round(t)))

    def walked(self, schedule: Schedule) -> Schedule:
        """See `Beginning`."""
        return Until(schedule, self.time(schedule))

    def check(self, sampler: Sampler, schedule: Schedule) -> None:
        """See `Beginning`."""
        sampler.times(self.walked(schedule))

    def __call__(self, sampler: Sampler, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> Start:
        """See `Beginning`."""
        t = self.time(denoise.process.schedule)
        at = torch.tensor(t, dtype=torch.float64)
        if self.strength == 1:
            return Start(denoise.process.prior(at, draws), t)
        return Start(denoise.process.corrupt(x, at, draws)[0], t)

    def record(self, images: str) -> dict[str, Any]:
        """See `Beginning`."""
        return {"edited": {"images": images, "strength": self.strength}}
