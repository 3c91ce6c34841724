"""Improved DDPM's schedule."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt

from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.diffusion.schedules.cosine_chen import CosineChen
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Wrapped


class Cosine(Wrapped):
    """``alpha_t^2 = f(t) / f(0)`` with ``f(t) = cos^2(pi/2 (t/T + s) / (1 + s))``, betas clipped.

    In continuous time there are no betas; there it is `CosineChen` from ``s / (1 + s)`` to 1, the same curve.
    Source: Improved DDPM (Nichol and Dhariwal 2021), equation 17.

    Args:
        num_steps: T, the number of diffusion steps; None for continuous time.
        s: the offset that keeps the first steps from being too small.
        beta_max: no beta is larger, so that the last level keeps a trace of signal.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = 1000,
        s: Annotated[float, Ge(0)] = 0.008,
        beta_max: Annotated[float, Gt(0), Lt(1)] = 0.999,
    ) -> None:
        schedule: Schedule
        if num_steps is None:
            schedule = CosineChen(num_steps=None, start=s / (1 + s))
        else:
            time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
            f = torch.cos(torch.pi / 2 * (time + s) / (1 + s)).square()
            schedule = BetaSchedule((1 - f[1:] / f[:-1]).clamp(max=beta_max))
        super().__init__(schedule)
