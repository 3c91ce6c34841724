"""DDPM's schedule."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt

from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.errors import OptionError


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
        self,
        num_steps: Annotated[int, Ge(1), Le(1_000_000)] = 1000,
        beta_start: Annotated[float, Gt(0), Lt(1)] = 1e-4,
        beta_end: Annotated[float, Gt(0), Lt(1)] = 0.02,
        rescale: bool = True,
    ) -> None:
        super().__init__(rising(num_steps, beta_start, beta_end, rescale, power=1))


def rising(num_steps: int, beta_start: float, beta_end: float, rescale: bool, power: int) -> torch.Tensor:
    """Betas whose `power`-th root rises linearly: float64 (T,).

    Raises:
        UserError: when they do not rise.
    """
    if beta_end < beta_start:
        raise OptionError("beta_end", f"is {beta_end}; allowed: at least beta_start ({beta_start})")
    ends = (beta_start ** (1 / power), beta_end ** (1 / power))
    betas = torch.linspace(*ends, num_steps, dtype=torch.float64) ** power
    return betas * (1000 / num_steps) if rescale else betas
