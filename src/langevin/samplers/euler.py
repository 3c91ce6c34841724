"""Euler's method."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.samplers.churn import Churned
from langevin.samplers.sampler import Predictor
from langevin.samplers.straight import StraightLines
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class Euler(Churned):
    """Along the tangent of the probability-flow ODE, with EDM's churn: one evaluation a step, of first order.

    Without churn it is DDIM. Source: EDM (Karras et al. 2022), algorithm 2 without its second evaluation; k-diffusion's
    "Euler".

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        s_churn: how much noise is added over all steps; 0: none, and the sampler is deterministic.
        s_min: noise is added where ``sigma / alpha`` is at least this.
        s_max: and at most this; None: no limit.
        s_noise: the standard deviation of the noise that is added.

    Raises:
        UserError: when `s_max` is below `s_min`.
    """

    independent_steps = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 50,
        s_churn: Annotated[float, Ge(0)] = 0.0,
        s_min: Annotated[float, Ge(0)] = 0.0,
        s_max: Annotated[float, Ge(0)] | None = None,
        s_noise: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps, s_churn, s_min, s_max, s_noise)

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        x_t, t = self.churn(denoise, x_t, t, draws)
        lines = StraightLines(denoise.schedule)
        return lines.move(x_t, lines.slope(denoise(x_t, t)), t, s), None
