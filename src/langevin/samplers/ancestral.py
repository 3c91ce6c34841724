"""DDPM's sampler."""

import torch
from torch import Tensor

from langevin.diffusion.level import like
from langevin.diffusion.reverse import posterior_mean
from langevin.samplers.grid import TimeGrid
from langevin.samplers.noise import NoiseSource
from langevin.samplers.sampler import Predictor, Sampler


class Ancestral(Sampler[None]):
    """Draws x_s from p(x_s | x_t): the posterior's mean at the predicted picture, and the model's variance.

    Source: DDPM (Ho et al. 2020), algorithm 2; on a coarser grid, Improved DDPM, section 4.

    Args:
        grid: the times it visits.
        steps: how many steps it takes; None for all of a discrete schedule.
        clip: whether each predicted picture is clamped to [-1, 1].
    """

    def __init__(self, grid: TimeGrid, steps: int | None = None, clip: bool = True) -> None:
        super().__init__(grid, steps, clip)

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, noise: NoiseSource
    ) -> tuple[Tensor, None]:
        """See `Sampler`; no noise is added in the last step."""
        prediction = denoise(x_t, t)
        if s == 0:
            return prediction.x, None
        mean = posterior_mean(prediction.x, x_t, denoise.schedule, s, t)
        log_variance = denoise.variance.log_variance(prediction.variance, denoise.schedule, s, t)
        return mean + like(torch.exp(0.5 * log_variance), x_t) * noise(), None
