"""Flow matching's schedule."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.curve import CurveSchedule


class FlowSchedule(CurveSchedule):
    """Straight lines from data to noise: ``alpha = 1 - u``, ``sigma = u``.

    Time runs as everywhere here, from data at 0 to noise at 1; the flow matching papers run the other way.
    Source: flow matching (Lipman et al. 2023), example II with sigma_min = 0; rectified flow (Liu et al. 2023).

    Args:
        num_steps: T; None for continuous time.
    """

    def __init__(self, num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = None) -> None:
        super().__init__(num_steps)

    def curve(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        return Level(1 - u, u)

    def curve_rate(self, u: Tensor) -> Level:
        """See `CurveSchedule`."""
        return Level(-torch.ones_like(u), torch.ones_like(u))

    def curve_inverse(self, ratio: Tensor) -> Tensor:
        """See `CurveSchedule`."""
        return ratio / (1 + ratio)

    @property
    def prior_std(self) -> float:
        """1."""
        return 1.0

    def norm(self, level: Level) -> Tensor:
        """``alpha + sigma``."""
        return level.alpha + level.sigma

    def tangent(self, level: Level) -> Level:
        """``(-1, 1)``."""
        return Level(-torch.ones_like(level.alpha), torch.ones_like(level.alpha))
