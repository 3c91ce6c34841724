"""The sigmoid schedule."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor

from langevin.diffusion.schedules.curve import GammaSchedule
from langevin.errors import OptionError


class SigmoidSchedule(GammaSchedule):
    """``f(u) = S((start + u (end - start)) / tau)`` in `GammaSchedule`, S the logistic function.

    It is not diffusers' "sigmoid", whose betas follow a sigmoid. Source: Chen 2023 (arXiv 2301.10972), algorithm 1;
    Jabri et al. 2022.

    Args:
        num_steps: T; None for continuous time.
        start: where on the sigmoid noise begins.
        end: where it ends.
        tau: the temperature; the source tries 0.3 to 1.1.
        gamma_min: what is left of the signal's power in the end.

    Raises:
        UserError: when `end` is not beyond `start`.
    """

    def __init__(
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = None,
        start: float = -3.0,
        end: float = 3.0,
        tau: Annotated[float, Gt(0)] = 1.0,
        gamma_min: Annotated[float, Ge(0), Lt(1)] = 1e-9,
    ) -> None:
        if end <= start:
            raise OptionError("end", f"is {end}; allowed: above start ({start})")
        self.start, self.end, self.tau = start, end, tau
        super().__init__(num_steps, gamma_min)

    def _position(self, u: Tensor) -> Tensor:
        return (self.start + u * (self.end - self.start)) / self.tau

    def shape(self, u: Tensor) -> Tensor:
        """See `GammaSchedule`."""
        return torch.sigmoid(self._position(u))

    def shape_rate(self, u: Tensor) -> Tensor:
        """See `GammaSchedule`."""
        position = self._position(u)
        return torch.sigmoid(position) * torch.sigmoid(-position) * (self.end - self.start) / self.tau

    def shape_inverse(self, f: Tensor) -> Tensor:
        """See `GammaSchedule`."""
        return (self.tau * torch.logit(f) - self.start) / (self.end - self.start)
