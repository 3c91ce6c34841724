"""A schedule written out."""

import torch

from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.errors import OptionError


class ExplicitSchedule(BetaSchedule):
    """beta_t is the t-th of a list: "trained_betas" in diffusers.

    Args:
        betas: beta_1..beta_T, each strictly between 0 and 1.

    Raises:
        UserError: when there is none, or one leaves (0, 1).
    """

    def __init__(self, betas: list[float]) -> None:
        if not betas:
            raise OptionError("betas", "is []; allowed: at least one number between 0 and 1")
        super().__init__(torch.tensor(betas, dtype=torch.float64))
