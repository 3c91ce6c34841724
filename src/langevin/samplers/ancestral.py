"""DDPM's sampler."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.reverse import posterior_mean
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class Ancestral(Sampler[None]):
    """Draws x_s from p(x_s | x_t): the posterior's mean at the predicted image, and the model's variance.

    Source: DDPM (Ho et al. 2020), algorithm 2; with fewer steps, Improved DDPM, section 4.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
    """

    supports_mean_guidance = True
    independent_steps = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = None,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`; no noise is added in the last step, to the data."""
        prediction = denoise(x_t, t)
        if s == t:  # its variance has no logarithm
            return x_t, None
        if s == 0:
            mean = broadcast_to(denoise.schedule(s).alpha, x_t) * prediction.x
        else:
            mean = posterior_mean(prediction.x, x_t, denoise.schedule, s, t)
        log_variance = denoise.variance.log_variance(prediction.variance, denoise.schedule, s, t)
        if prediction.mean_gradient is not None:
            mean = mean + broadcast_to(torch.exp(log_variance), x_t) * prediction.mean_gradient
        return mean if s == 0 else mean + broadcast_to(torch.exp(0.5 * log_variance), x_t) * draws.normal(), None
