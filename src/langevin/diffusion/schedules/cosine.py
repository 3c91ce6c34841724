"""Improved DDPM's schedule."""

import torch

from langevin.diffusion.schedules.schedule import BetaSchedule
from langevin.errors import UserError


class Cosine(BetaSchedule):
    """``alpha_t^2 = f(t) / f(0)`` with ``f(t) = cos^2(pi/2 (t/T + s) / (1 + s))``, betas clipped.

    Source: Improved DDPM (Nichol and Dhariwal 2021), equation 17.

    Args:
        num_steps: T, the number of diffusion steps.
        s: the offset that keeps the first steps from being too small; at least 0.
        beta_max: no beta is larger, so that the last level keeps a trace of signal; in (0, 1).

    Raises:
        UserError: when an argument leaves its range.
    """

    def __init__(self, num_steps: int = 1000, s: float = 0.008, beta_max: float = 0.999) -> None:
        if num_steps < 1:
            raise UserError(f"num_steps is {num_steps}; allowed: a whole number of at least 1")
        if s < 0:
            raise UserError(f"s is {s}; allowed: at least 0")
        if not 0 < beta_max < 1:
            raise UserError(f"beta_max is {beta_max}; allowed: strictly between 0 and 1")
        time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        f = torch.cos(torch.pi / 2 * (time + s) / (1 + s)).square()
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=beta_max))
