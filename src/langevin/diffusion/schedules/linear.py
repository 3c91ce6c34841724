"""DDPM's schedule."""

import torch

from langevin.diffusion.schedules.schedule import BetaSchedule
from langevin.errors import UserError


class Linear(BetaSchedule):
    """beta_t rises linearly. Source: DDPM (Ho et al. 2020), section 4.

    Args:
        num_steps: T, the number of diffusion steps.
        beta_start: the first beta at T = 1000.
        beta_end: the last beta at T = 1000.
        rescale: for another T, scale both betas by 1000 / T so that the same noise is reached in the end (Improved
            DDPM, appendix A); false takes them as they stand.

    Raises:
        UserError: when a beta leaves (0, 1) or they do not rise.
    """

    def __init__(
        self, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, rescale: bool = True
    ) -> None:
        if num_steps < 1:
            raise UserError(f"num_steps is {num_steps}; allowed: a whole number of at least 1")
        if beta_end < beta_start:
            raise UserError(f"beta_end is {beta_end}; allowed: at least beta_start ({beta_start})")
        factor = 1000 / num_steps if rescale else 1.0
        super().__init__(torch.linspace(factor * beta_start, factor * beta_end, num_steps, dtype=torch.float64))
