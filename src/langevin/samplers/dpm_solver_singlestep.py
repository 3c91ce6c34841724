"""DPM-Solver++ without a memory."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.samplers.exponential import distance, first_order
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class DPMSolver1S(Sampler[None]):
    """DPM-Solver++ of first order, which is DDIM with eta = 0. Source: Lu et al. 2022 (arXiv 2211.01095).

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
    """

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 50,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        return first_order(x_t, denoise(x_t, t).x, denoise.schedule(t), denoise.schedule(s)), None


class DPMSolver2S(Sampler[None]):
    """DPM-Solver++(2S): a second evaluation within each step. Second order.

    A step from pure noise and the one to the data are of first order, since both are infinite in logSNR; so N steps
    are 2 N - 1 evaluations, or 2 N - 2 from pure noise. With discrete steps, the second evaluation falls between them.
    Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 1.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        r: where the second evaluation is, in logSNR: 0.5 is halfway, 1 at the step's end.
    """

    higher_order = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 10,
        r: Annotated[float, Gt(0), Le(1)] = 0.5,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.r = r

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: None, draws: Draws
    ) -> tuple[Tensor, None]:
        """See `Sampler`."""
        x = denoise(x_t, t).x
        at_t, at_s = denoise.schedule(t), denoise.schedule(s)
        if at_t.alpha == 0 or s == 0:
            return first_order(x_t, x, at_t, at_s), None
        u = denoise.schedule.time_of(at_t.ratio * torch.exp(-self.r * distance(at_t, at_s)))
        x_u = first_order(x_t, x, at_t, denoise.schedule(u))
        return first_order(x_t, x + (denoise(x_u, u).x - x) / (2 * self.r), at_t, at_s), None
