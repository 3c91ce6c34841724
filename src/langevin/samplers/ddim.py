"""DDIM."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws, SampleDraws
from langevin.diffusion.level import broadcast_to, combine
from langevin.diffusion.reverse import transition
from langevin.samplers.sampler import OnPrediction, Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class DDIM(Sampler[None]):
    """Steps along the predicted noise, renewing a part of it. Source: DDIM (Song et al. 2021), equations 12 and 16.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        eta: 0 renews no noise (deterministic); 1 renews as much as ancestral sampling with the small variance.
    """

    invertible = True
    independent_steps = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 50,
        eta: Annotated[float, Ge(0), Le(1)] = 0.0,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.eta = eta

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        prediction = denoise(x_t, t)
        at_s = denoise.schedule(s)
        if self.eta == 0:
            return combine(at_s.alpha, prediction.x, at_s.sigma, prediction.eps), None
        renewed = self.eta**2 * transition(denoise.schedule, s, t).posterior_variance
        kept = torch.sqrt((at_s.sigma.square() - renewed).clamp(min=0))
        x_s = combine(at_s.alpha, prediction.x, kept, prediction.eps)
        return (x_s + broadcast_to(torch.sqrt(renewed), x_t) * draws.normal() if s > 0 else x_s), None

    @torch.no_grad()
    def invert(
        self, denoise: Denoise, x: Tensor, cond: Condition | None = None, on_prediction: OnPrediction | None = None
    ) -> Tensor:
        """The noise that images come from: the deterministic steps, taken the other way.

        Sampling from it with eta = 0 gives the images back, the better the more steps. The images themselves are
        taken to be at the schedule's first time, where there is next to no noise; nothing is thresholded. Source: DDIM
        (Song et al. 2021), section 4.3 and equation 14.

        Args:
            denoise: the model.
            x: images (B, C, H, W) in [-1, 1].
            cond: what the images are conditioned on.
            on_prediction: is called after each evaluation.

        Returns:
            noise of unit variance, which the process's prior would have drawn.
        """
        schedule = denoise.process.schedule
        times = self.times(schedule).flip(0)
        times = torch.cat([times.new_tensor([schedule.t_min]), times[times > schedule.t_min]])
        start = broadcast_to(schedule(times[0]).alpha, x) * x
        predictor = Predictor(denoise, times, cond, None, on_prediction)
        end = DDIM(self.timestep_spacing, None, self.steps, eta=0).walk(predictor, start, SampleDraws(0, (), ()))
        return end / denoise.process.prior_std(times[-1])
