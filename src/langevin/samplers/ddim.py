"""DDIM."""

import torch
from torch import Tensor

from langevin.diffusion.level import combine, like
from langevin.diffusion.reverse import transition
from langevin.errors import UserError
from langevin.samplers.grid import TimeGrid
from langevin.samplers.noise import NoiseSource
from langevin.samplers.sampler import Predictor, Sampler


class DDIM(Sampler[None]):
    """Steps along the predicted noise, renewing a part of it. Source: DDIM (Song et al. 2021), equations 12 and 16.

    Args:
        grid: the times it visits.
        steps: how many steps it takes; None for all of a discrete schedule.
        eta: 0 renews no noise (deterministic); 1 renews as much as ancestral sampling with the small variance.
        clip: whether each predicted picture is clamped to [-1, 1].

    Raises:
        UserError: when eta leaves [0, 1].
    """

    def __init__(self, grid: TimeGrid, steps: int | None = 50, eta: float = 0.0, clip: bool = True) -> None:
        super().__init__(grid, steps, clip)
        if not 0 <= eta <= 1:
            raise UserError(f"eta is {eta}; allowed: 0 (deterministic) to 1 (ancestral)")
        self.eta = eta

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, noise: NoiseSource
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        prediction = denoise(x_t, t)
        at_s = denoise.schedule(s)
        renewed = self.eta**2 * transition(denoise.schedule, s, t).posterior_variance
        kept = torch.sqrt((at_s.sigma.square() - renewed).clamp(min=0))
        x_s = combine(at_s.alpha, prediction.x, kept, prediction.eps)
        if self.eta > 0 and s > 0:
            x_s = x_s + like(torch.sqrt(renewed), x_t) * noise()
        return x_s, None
