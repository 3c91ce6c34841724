"""The cosine schedule with a start, an end and a temperature."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from langevin.diffusion.schedules.curve import GammaSchedule
from langevin.errors import OptionError


class CosineChen(GammaSchedule):
    """``f(u) = cos^{2 tau}(pi/2 (start + u (end - start)))`` in `GammaSchedule`. Source: Chen 2023, algorithm 1.

    Args:
        num_steps: T; None for continuous time.
        start: where on the cosine noise begins, in quarter periods.
        end: where it ends.
        tau: the exponent; a larger one brings noise earlier.
        gamma_min: what is left of the signal's power in the end.

    Raises:
        UserError: when `end` is not beyond `start`.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
        start: Annotated[float, Ge(0), Lt(1)] = 0.0,
        end: Annotated[float, Gt(0), Le(1)] = 1.0,
        tau: Annotated[float, Gt(0)] = 1.0,
        gamma_min: Annotated[float, Ge(0), Lt(1)] = 1e-9,
    ) -> None:
        if end <= start:
            raise OptionError("end", f"is {end}; allowed: above start ({start})")
        self.start, self.end, self.tau = start, end, tau
        super().__init__(num_steps, gamma_min)

    def _angle(self, u: Tensor) -> Tensor:
        return math.pi / 2 * (self.start + u * (self.end - self.start))

    def shape(self, u: Tensor) -> Tensor:
        """See `GammaSchedule`."""
        return torch.cos(self._angle(u)).clamp(min=0) ** (2 * self.tau)

    def shape_rate(self, u: Tensor) -> Tensor:
        """See `GammaSchedule`."""
        angle = self._angle(u)
        slope = -math.pi / 2 * (self.end - self.start)
        return 2 * self.tau * torch.cos(angle).clamp(min=0) ** (2 * self.tau - 1) * torch.sin(angle) * slope

    def shape_inverse(self, f: Tensor) -> Tensor:
        """See `GammaSchedule`."""
        angle = torch.acos(f.clamp(0, 1) ** (1 / (2 * self.tau)))
        return (angle * 2 / math.pi - self.start) / (self.end - self.start)
