"""Heun's method, EDM's sampler."""

import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.samplers.churn import Churned
from langevin.samplers.sampler import Predictor
from langevin.samplers.straight import StraightLines
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class Heun(Churned):
    """The mean of the slopes at both ends of a step, with EDM's churn: two evaluations a step, of second order.

    The last step, to the data, is Euler's: there is nothing to predict at its end. N steps are 2 N - 1 evaluations.
    Source: EDM (Karras et al. 2022), algorithms 1 and 2, for any schedule.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        s_churn: how much noise is added over all steps; 0: none, and the sampler is deterministic.
        s_min: noise is added where ``sigma / alpha`` is at least this.
        s_max: and at most this; None: no limit.
        s_noise: the standard deviation of the noise that is added.
        max_ratio: a step that shortens tau (`StraightLines`; sigma / alpha where that stays finite) by more than this
            factor is Euler's: its two slopes lie too far apart for their mean to mean anything. None: never.

    Raises:
        UserError: when `s_max` is below `s_min`.
    """

    higher_order = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 18,
        s_churn: Annotated[float, Ge(0)] = 0.0,
        s_min: Annotated[float, Ge(0)] = 0.0,
        s_max: Annotated[float, Ge(0)] | None = None,
        s_noise: Annotated[float, Ge(0)] = 1.0,
        max_ratio: Annotated[float, Gt(1)] | None = None,
    ) -> None:
        self.max_ratio = math.inf if max_ratio is None else max_ratio
        super().__init__(timestep_spacing, thresholding, steps, s_churn, s_min, s_max, s_noise)

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        x_t, t = self.churn(denoise, x_t, t, draws)
        lines = StraightLines(denoise.schedule)
        slope = lines.slope(denoise(x_t, t))
        x_s = lines.move(x_t, slope, t, s)
        if s == 0 or lines.tau(t) > self.max_ratio * lines.tau(s):
            return x_s, None
        return lines.move(x_t, (slope + lines.slope(denoise(x_s, s))) / 2, t, s), None
