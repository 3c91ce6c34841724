"""DPM-Solver++ with a memory."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.samplers.exponential import History, ModelEvaluation, distance, multistep, order_at, remembered
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing

FEW_STEPS = 15
"""In fewer steps than this, the order is lowered towards the end, if it is to be. Source: diffusers."""


class DPMSolver2M(Sampler[History]):
    """DPM-Solver++(2M): the evaluation of the step before makes it second order, at one evaluation a step.

    The first step and the one to the data are of first order. Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
    """

    higher_order = True
    order = 2
    lower_order_final = False
    released = False

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 20,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: History | None, draws: Draws
    ) -> tuple[Tensor, History]:
        """See `Sampler`."""
        at_t, at_s = denoise.schedule(t), denoise.schedule(s)
        evaluations = (ModelEvaluation(at_t, denoise(x_t, t).x), *(state or ()))
        lowered = self.lower_order_final and len(denoise.times) - 1 < FEW_STEPS
        order = order_at(self.order, denoise.times, t, s, lowered)
        midpoint = -torch.expm1(-distance(at_t, at_s))
        x_s = multistep(x_t, evaluations[:order], at_s, midpoint, self.released)
        return x_s, remembered(evaluations, self.order - 1)


class DPMSolver3M(DPMSolver2M):
    """DPM-Solver++(3M): with the evaluations of two steps before, third order. One evaluation a step.

    The first step is of first order and the second of second. Source: Lu et al. 2022 (arXiv 2211.01095), the Taylor
    expansion of section 4, its derivatives taken from the polynomial through three evaluations.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        lower_order_final: in fewer than 15 steps, the last but one is of second order.
        released: take half of the second derivative, as the paper's released code does, and diffusers and k-diffusion
            after it; this is of second order only.
    """

    order = 3

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 20,
        lower_order_final: bool = True,
        released: bool = False,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.lower_order_final = lower_order_final
        self.released = released
