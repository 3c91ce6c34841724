"""DDNM."""

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.restoration.restoration import Correction, Measurement


class DDNM(Correction):
    """Puts what is measured into each predicted sample, ``x + A^+ (y - A x)``: no gradient, one evaluation a step.

    With noise in y, what is put in is scaled by ``min(1, sigma_s / (alpha_s sigma_y))``, s being the next time, so that
    it holds no more noise than the next step's samples do; the variance of the sampler's own noise stays as it is,
    which the source lowers. Sources: DDNM (Wang et al. 2023, arXiv 2212.00490), equations 13, 17 and 19.
    """

    is_exact = True

    def correct(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        cond: Condition | None,
        measurement: Measurement,
        times: Tensor,
    ) -> tuple[Prediction, Tensor]:
        """See `Correction`."""
        prediction = denoise(x_t, t, cond)
        moved = measurement.operator.pseudo_inverse(measurement.residual(prediction.x), measurement.shape)
        if measurement.noise == 0:
            return prediction, moved
        later = times[times < t.min()]
        ratio = denoise.process.schedule(later.max()).ratio if len(later) else torch.zeros((), dtype=torch.float64)
        return prediction, broadcast_to((ratio / measurement.noise).clamp(max=1), moved) * moved
