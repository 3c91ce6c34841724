"""Classifier-free guidance."""

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser, Prediction
from langevin.errors import UserError


class ClassifierFree:
    """Extrapolates from the unconditional to the conditional prediction: ``u + scale (c - u)``.

    Both predictions are made in one batch. A scale of 1 is no guidance (and costs nothing more); other texts write
    ``w = scale - 1``. The model must have been trained with its condition dropped now and then (`condition.dropout`).
    Source: Ho and Salimans 2022, equation 6.

    Args:
        denoiser: the model.
        scale: at least 0; 0 is unconditional.

    Raises:
        UserError: when the scale is negative.
    """

    def __init__(self, denoiser: Denoiser, scale: float = 1.0) -> None:
        if scale < 0:
            raise UserError(f"scale is {scale}; allowed: at least 0 (1 is no guidance)")
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.variance = denoiser.variance
        self.scale = scale

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """See `Denoiser.forward`; `cond` is needed."""
        if cond is None:
            raise UserError("guidance=classifier_free needs a condition (labels) to guide towards, and none was given")
        if self.scale == 1:
            return self.denoiser(x_t, t, cond)
        null = self.denoiser.null_condition(cond)
        both = self.denoiser(
            torch.cat([x_t, x_t]),
            t if t.ndim == 0 else torch.cat([t, t]),
            {name: torch.cat([cond[name], null[name]]) for name in cond},
        )
        (x, x_null), (eps, eps_null), (raw, raw_null) = both.x.chunk(2), both.eps.chunk(2), both.raw.chunk(2)
        return Prediction(
            x=torch.lerp(x_null, x, self.scale),
            eps=torch.lerp(eps_null, eps, self.scale),
            raw=torch.lerp(raw_null, raw, self.scale),
            variance=None if both.variance is None else both.variance.chunk(2)[0],
        )
