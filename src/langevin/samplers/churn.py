"""EDM's churn: a little more noise before each step."""

import math

from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import combine
from langevin.diffusion.reverse import transition
from langevin.errors import OptionError
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class Churned(Sampler[None]):
    """A sampler that may raise the noise before each step, to forget the errors that it has made.

    The noise level ``sigma / alpha`` is raised by the factor 1 + gamma, ``gamma = min(s_churn / steps, sqrt(2) - 1)``,
    by the forward process itself, but never beyond the schedule's last level: there is no model of what lies beyond.
    Source: EDM (Karras et al. 2022), algorithm 2, for any schedule.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        s_churn: how much noise is added over all steps; 0: none, and the sampler is deterministic.
        s_min: noise is added where ``sigma / alpha`` is at least this.
        s_max: and at most this; None: no limit.
        s_noise: the standard deviation of the noise that is added; the source has slightly more than 1.

    Raises:
        UserError: when `s_max` is below `s_min`.
    """

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None,
        steps: int | None,
        s_churn: float,
        s_min: float,
        s_max: float | None,
        s_noise: float,
    ) -> None:
        if s_max is not None and s_max < s_min:
            raise OptionError("s_max", f"is {s_max}; allowed: at least s_min ({s_min}), or null: no limit")
        super().__init__(timestep_spacing, thresholding, steps)
        self.s_churn = s_churn
        self.s_min = s_min
        self.s_max = math.inf if s_max is None else s_max
        self.s_noise = s_noise

    def churn(self, denoise: Predictor, x_t: Tensor, t: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) with more noise, and the time () that they are then at."""
        schedule, ratio = denoise.schedule, denoise.schedule(t).ratio
        if self.s_churn == 0 or not self.s_min <= ratio <= self.s_max:
            return x_t, t
        gamma = min(self.s_churn / (len(denoise.times) - 1), math.sqrt(2) - 1)
        t_hat = schedule.time_of((1 + gamma) * ratio)
        if t_hat <= t:
            return x_t, t
        step = transition(schedule, t, t_hat)
        return combine(step.alpha, x_t, self.s_noise * step.variance.sqrt(), draws.normal()), t_hat
