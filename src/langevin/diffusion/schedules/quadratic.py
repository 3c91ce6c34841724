"""DDPM's other schedule, known from latent diffusion."""

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from langevin.diffusion.schedules.beta import BetaSchedule
from langevin.diffusion.schedules.linear import rising


class QuadraticSchedule(BetaSchedule):
    """The square root of beta_t rises linearly.

    It is "quad" in DDPM's code, "scaled_linear" in diffusers, and "linear" in latent diffusion, whose betas run from
    8.5e-4 to 0.012. Source: DDPM (Ho et al. 2020), released code.

    Args:
        num_steps: T, the number of diffusion steps.
        beta_start: the first beta at T = 1000.
        beta_end: the last beta at T = 1000.
        rescale: for another T, scale all betas by 1000 / T so that the same noise is reached in the end; false takes
            them as they stand.

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
        super().__init__(rising(num_steps, beta_start, beta_end, rescale, power=2))
