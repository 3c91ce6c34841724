"""The first diffusion models' schedule."""

from typing import Annotated

import torch
from annotated_types import Ge, Le

from langevin.diffusion.schedules.beta import BetaSchedule


class Reciprocal(BetaSchedule):
    """``beta_t = 1 / n_t`` with n_t falling evenly from T to 2, so that every step destroys as much of the signal.

    alpha^2 falls about linearly, and about 1 / T of it is left in the end. Source: deep unsupervised learning using
    nonequilibrium thermodynamics (Sohl-Dickstein et al. 2015), section 2.4.1 and the released code.

    Args:
        num_steps: T, the number of diffusion steps.
    """

    def __init__(self, num_steps: Annotated[int, Ge(2), Le(1_000_000)] = 1000) -> None:
        super().__init__(1 / torch.linspace(num_steps, 2, num_steps, dtype=torch.float64))
