"""A schedule that ends in pure noise."""

import torch
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped
from langevin.errors import UserError


class ZeroTerminalSNR(Wrapped):
    """alpha is shifted and scaled so that it ends at 0 and begins as before.

    The network must then predict a quantity that determines the image where no signal is left: v, x or the flow's
    velocity, but not eps. Source: Lin et al. 2023 (arXiv 2305.08891), algorithm 1.

    Args:
        schedule: the schedule without it.

    Raises:
        UserError: when the schedule does not preserve variance, ``alpha^2 + sigma^2 = 1``, or has a single step, which
            cannot both stay and change.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        if schedule.num_steps == 1:
            raise UserError("needs a schedule of at least 2 steps, the first of which stays as it is")
        self._start = 0.0 if schedule.num_steps is None else 1.0
        alpha, sigma = schedule(torch.linspace(self._start, schedule.t_max, 3, dtype=torch.float64))
        if not torch.allclose(torch.hypot(alpha, sigma), torch.ones_like(alpha)):
            raise UserError("needs a schedule that preserves variance, alpha^2 + sigma^2 = 1")
        self._first, self._last = alpha[0], alpha[-1]
        # alpha becomes scale (alpha - last), and 1 - alpha becomes scale (1 - alpha) - shift.
        self._scale = self._first / (self._first - self._last)
        self._shift = self._last * (1 - self._first) / (self._first - self._last)

    def __call__(self, t: Tensor) -> Level:
        """See `Schedule`."""
        alpha, sigma = self.schedule(t)
        rest = sigma.square() / (1 + alpha)  # 1 - alpha, without cancellation
        rest = torch.where(t > self._start, self._scale * rest - self._shift, rest)
        alpha = torch.where(t > self._start, self._scale * (alpha - self._last), alpha)
        return Level(alpha, torch.sqrt(rest * (2 - rest)))

    def rate(self, t: Tensor) -> Level:
        """See `Schedule`."""
        level = self(t)
        alpha = self.schedule.rate(t).alpha * torch.where(t > self._start, self._scale, 1.0)
        return Level(alpha, -level.alpha * alpha / level.sigma)

    def time_of(self, ratio: Tensor) -> Tensor:
        """See `Schedule`."""
        hypotenuse = torch.hypot(torch.ones_like(ratio), ratio)
        rest = ratio / hypotenuse * (ratio / (1 + hypotenuse))  # 1 - alpha; nan where no signal is left
        own = torch.where(1 / hypotenuse > self._first, rest, (rest + self._shift) / self._scale)
        time = self.schedule.time_of(torch.sqrt(own * (2 - own)) / (1 - own))
        return torch.where(ratio.isinf(), self.t_max, time)
