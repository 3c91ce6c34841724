"""Classifier-free guidance."""

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import OptionError, UserError
from langevin.guidance.guidance import Guidance
from langevin.spec import DataSpec


class ClassifierFree(Guidance):
    """Extrapolates from the unconditional to the conditional prediction: ``u + scale (c - u)``.

    Both predictions are made in one batch. A scale of 1 is no guidance (and costs nothing more); other texts write
    ``w = scale - 1``. The model must have been trained with condition dropout (`conditions.class_label.dropout`).
    Sources: Ho and Salimans 2022, equation 6; the interval, Kynkaanniemi et al. 2024 (arXiv 2404.07724); the rescaling,
    Lin et al. 2023 (arXiv 2305.08891), section 3.4.

    Args:
        scale: 0 is unconditional, 1 conditional, more exaggerates the condition.
        rescale: phi; how far the guided output of each image is brought back to the conditional one's standard
            deviation, against overexposure: 0 not at all, 1 wholly.
        sigma_min: only where ``sigma / alpha`` is above this there is guidance; None for no bound.
        sigma_max: only where it is at most this; None for no bound.

    Raises:
        UserError: when the interval is empty.
    """

    needs_unconditional = True

    def __init__(
        self,
        scale: Annotated[float, Ge(0)] = 1.0,
        rescale: Annotated[float, Ge(0), Le(1)] = 0.0,
        sigma_min: Annotated[float, Ge(0)] | None = None,
        sigma_max: Annotated[float, Ge(0)] | None = None,
    ) -> None:
        super().__init__()
        self.low = 0.0 if sigma_min is None else sigma_min
        self.high = float("inf") if sigma_max is None else sigma_max
        if self.high <= self.low:
            raise OptionError("sigma_max", f"is {sigma_max}; allowed: above sigma_min ({sigma_min})")
        self.scale = scale
        self.rescale = rescale

    def check(self, schedule: Schedule | None, spec: DataSpec | None, conditional: bool) -> None:
        """See `Guidance`."""
        if not conditional:
            raise UserError("needs a class-conditional model: add conditions=[class_label], or leave guidance out")

    def forward(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Condition | None) -> Prediction:
        """See `Guidance`; `cond` is needed."""
        if cond is None:
            raise UserError("guidance=classifier_free needs a condition (labels) to guide towards, and none was given")
        ratio = denoiser.schedule(t).ratio
        scale = 1 + (self.scale - 1) * ((ratio > self.low) & (ratio <= self.high)).double()
        if (scale == 1).all():
            return denoiser(x_t, t, cond)
        null = denoiser.null_condition(cond)
        both = denoiser(
            torch.cat([x_t, x_t]),
            t if t.ndim == 0 else torch.cat([t, t]),
            {name: torch.cat([cond[name], null[name]]) for name in cond},
        )
        raw, raw_null = both.raw.chunk(2)
        guided = torch.lerp(raw_null, raw, broadcast_to(scale, raw))
        if self.rescale > 0:
            # Where there is no guidance the two spreads are the same, and so nothing is changed.
            guided = guided * (1 + self.rescale * (spread(raw) / spread(guided) - 1))
        variance = None if both.variance is None else both.variance.chunk(2)[0]
        return denoiser.process.solve(guided, variance, x_t, t)


def spread(x: Tensor) -> Tensor:
    """The standard deviation of each image: (B, 1, 1, 1)."""
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
