"""UniPC."""

from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.diffusion.draws import Draws
from langevin.diffusion.level import Level
from langevin.samplers.exponential import History, ModelEvaluation, distance, multistep, order_at, remembered
from langevin.samplers.sampler import Predictor, Sampler
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import TimestepSpacing


class Correctable(NamedTuple):
    """The step before, which the next evaluation will correct.

    Attributes:
        x: the images it stepped from, (B, C, H, W).
        evaluations: the latest when it was taken, at most `order` of them, the newest first.
    """

    x: Tensor
    evaluations: History


class UniPC(Sampler[Correctable]):
    """A multistep predictor, and a corrector that costs no evaluation: together of order `order` + 1.

    The evaluation at the end of a step first corrects the step and then serves the next one; the last step, to the
    data, is of first order and is not corrected, nor is one from pure noise. One evaluation a step. Source: UniPC
    (Zhao et al. 2023, arXiv 2302.04867), algorithms 1 and 2, in data prediction. Its authors advise order 3 for
    unconditional models and 2 with guidance.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.
        order: the predictor's.
        variant: the paper's B(h), in data prediction ``h`` (bh1) or ``1 - e^{-h}`` (bh2); it matters in predictors of
            order 2 and correctors of order 1, which other steps begin and end with. bh1 is advised for unconditional
            models in fewer than 10 steps.
        lower_order_final: the order of a step is at most the number of steps left.
    """

    higher_order = True

    def __init__(
        self,
        timestep_spacing: TimestepSpacing,
        thresholding: Thresholding | None = None,
        steps: Annotated[int, Ge(1)] | None = 20,
        order: Annotated[int, Ge(1), Le(3)] = 3,
        variant: Literal["bh1", "bh2"] = "bh2",
        lower_order_final: bool = True,
    ) -> None:
        super().__init__(timestep_spacing, thresholding, steps)
        self.order = order
        self.variant = variant
        self.lower_order_final = lower_order_final

    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: Correctable | None, draws: Draws
    ) -> tuple[Tensor, Correctable | None]:
        """See `Sampler`."""
        at_t, at_s = denoise.schedule(t), denoise.schedule(s)
        now = ModelEvaluation(at_t, denoise(x_t, t).x)
        before: History = ()
        if state is not None:
            before = state.evaluations
            through = (before[0], now, *before[1:])
            x_t = multistep(state.x, through, at_t, self._b(before[0].level, at_t))
        evaluations = (now, *before)
        order = order_at(self.order, denoise.times, t, s, self.lower_order_final)
        x_s = multistep(x_t, evaluations[:order], at_s, self._b(at_t, at_s))
        kept = remembered(evaluations, self.order)
        return x_s, Correctable(x_t, kept) if kept else None

    def _b(self, at_t: Level, at_s: Level) -> Tensor:
        """B(h)."""
        h = distance(at_t, at_s)
        return h if self.variant == "bh1" else -torch.expm1(-h)
