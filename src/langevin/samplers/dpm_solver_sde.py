"""DPM-Solver++ for the reverse SDE."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import broadcast_to, combine
from langevin.samplers.exponential import History, ModelEvaluation, distance, remembered
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class DPMSolver2MSDE(Sampler[History]):
    """SDE-DPM-Solver++(2M): DPM-Solver++(2M) that renews a part of the noise in each step but the last.

    Source: Lu et al. 2022 (arXiv 2211.01095), on SDEs, for eta = 1; for others, Katherine Crowson's k-diffusion,
    "DPM-Solver++(2M) SDE" of type midpoint.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        eta: how much noise is renewed: 0, none, is DPM-Solver++(2M); 1 is the reverse SDE.
    """

    higher_order = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 50,
        eta: Annotated[float, Ge(0)] = 1.0,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.eta = eta

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: History | None, draws: Draws
    ) -> tuple[Tensor, History]:
        """See `Sampler`."""
        at_t, at_s = denoise.schedule(t), denoise.schedule(s)
        now, *before = evaluations = (ModelEvaluation(at_t, denoise(x_t, t).x), *(state or ()))
        x = now.x
        if before and s > 0:
            x = x + broadcast_to(distance(at_t, at_s) / distance(before[0].level, at_t) / 2, x) * (x - before[0].x)
        fall = at_s.ratio / at_t.ratio  # e^{-h}; the old noise falls by a further power of it, which new noise makes up
        kept = fall**self.eta
        x_s = combine(kept * at_s.sigma / at_t.sigma, x_t, at_s.alpha * (1 - kept * fall), x)
        if self.eta > 0 and s > 0:
            x_s = x_s + broadcast_to(at_s.sigma * torch.sqrt(1 - kept.square()), x_t) * draws.normal()
        return x_s, remembered(evaluations, 1)
