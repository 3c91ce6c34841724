"""The noise levels between which a model is judged in continuous time, and what lies at their two ends."""

import math

import torch
from torch import Tensor

from langevin.diffusion.bound import HALF_BIN
from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError

FURTHEST = 20.0
"""How many standard deviations away a byte still counts in `byte_nll`: one beyond would add less than 1e-30."""


class Interval:
    """The logSNRs from that of the least noise, `first`, to that of the most, `last`.

    They are the schedule's own at t_min and t_max, where those do not lie beyond the limits: with hardly any noise
    bytes gain no more information; and where no signal is left, logSNR is infinite, while all that lies below
    -15 would add ``1/2 exp(-15) |x - x_hat|^2`` to a bound, less than 1e-6.

    Args:
        log_snr_max: a limit to `first`.
        log_snr_min: a limit to `last`.

    Raises:
        UserError: when `log_snr_max` is not above `log_snr_min`.
    """

    def __init__(self, log_snr_max: float, log_snr_min: float) -> None:
        if log_snr_max <= log_snr_min:
            raise OptionError("log_snr_max", f"is {log_snr_max}; allowed: above log_snr_min ({log_snr_min})")
        self.log_snr_max, self.log_snr_min = log_snr_max, log_snr_min

    def check(self, schedule: Schedule) -> None:
        """Check that part of the schedule lies between the limits.

        Raises:
            UserError: when no part does.
        """
        most, least = schedule(both_ends(schedule)).log_snr.tolist()
        if self.log_snr_max <= least:
            raise OptionError("log_snr_max", f"is {self.log_snr_max}; allowed: above the schedule's last, {least:.4g}")
        if self.log_snr_min >= most:
            raise OptionError("log_snr_min", f"is {self.log_snr_min}; allowed: below the schedule's first, {most:.4g}")

    def __call__(self, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """The logSNRs `first` and `last`, float64 ()."""
        most, least = schedule(both_ends(schedule)).log_snr
        return most.clamp(max=self.log_snr_max), least.clamp(min=self.log_snr_min)


def both_ends(schedule: Schedule) -> Tensor:
    """The times of least and most noise, float64 (2,)."""
    return torch.tensor([schedule.t_min, schedule.t_max], dtype=torch.float64)


def time_at(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """The time at which the schedule has a logSNR; between the steps of a discrete one it is not an integer."""
    return schedule.time_of(torch.exp(-log_snr / 2)).clamp(schedule.t_min, schedule.t_max)


def byte_nll(x: Tensor, eps: Tensor, level: Level) -> Tensor:
    """Minus the log-probability of bytes given ``x_t = alpha x + sigma eps``, element by element.

    ``p(x | x_t)`` is proportional to ``q(x_t | x)`` over the 256 values of a byte: Bayes' rule for bytes with a
    uniform prior. Source: VDM (Kingma et al. 2021), section 3.3.

    Args:
        x: images of bytes, in [-1, 1].
        eps: the noise, of the shape of `x`.
        level: float64 ().
    """
    # q(x_t | x + k bins) / q(x_t | x) is exp(d (eps - d / 2)) for d = k bins in standard deviations, at most
    # exp(eps^2 / 2): their sum needs no scaling.
    bin_in_stds = 2 * HALF_BIN / float(level.ratio)
    reach = min(255, math.floor(FURTHEST / bin_in_stds) + 1)
    total = torch.ones_like(x)
    for k in (*range(-reach, 0), *range(1, reach + 1)):
        is_byte = (x + 2 * HALF_BIN * k).abs() < 1 + HALF_BIN
        distance = bin_in_stds * k
        total = total + torch.where(is_byte, torch.exp(distance * (eps - distance / 2)), 0.0)
    return torch.log(total)
