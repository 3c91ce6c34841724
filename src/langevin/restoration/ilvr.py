"""Iterative latent variable refinement."""

from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.denoiser import Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import GaussianProcess
from langevin.restoration.restoration import Measurement, Restoration, Visiting
from langevin.restoration.walk import Walk


class Replacement(Visiting):
    """Replaces after each step what is measured of the samples by the measurement with as much noise.

    ``x_s + A^+ (y_s - A x_s)`` with ``y_s = alpha_s y + sigma_s A eps``.

    Args:
        method: whose times are visited.
        process: the model's.
        measurement: of the samples.
        draws: their random numbers for eps.
        sigma_min: only where ``sigma / alpha`` is at least this.
    """

    def __init__(
        self,
        method: Restoration,
        process: GaussianProcess,
        measurement: Measurement,
        draws: Draws,
        sigma_min: float = 0,
    ) -> None:
        super().__init__(method)
        self.process = process
        self.measurement = measurement
        self.draws = draws
        self.sigma_min = sigma_min

    def after(self, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """See `Walk`."""
        level, (y, operator, _, shape, _) = self.process.schedule(s), self.measurement
        if level.ratio < self.sigma_min:
            return x_s
        known = broadcast_to(level.alpha, y) * y
        if level.sigma > 0:
            known = known + broadcast_to(level.sigma, y) * operator(self.draws.normal(shape))
        return operator.projected(x_s, known)


class ILVR(Restoration):
    """Replaces after each step what is measured of the samples by the measurement with as much noise.

    Made for images that resemble one of which an average or a blur is known, and works with any operator: the source's
    low-pass filter, down and up again, is here ``A^+ A``. Source: ILVR (Choi et al. 2021, arXiv 2108.02938), algorithm
    1.

    Args:
        sigma_min: only where ``sigma / alpha`` is at least this is anything replaced: below, the samples go where the
            model takes them, and meet the measurement nearly; 0: to the end.
    """

    walks = True
    takes_noise = False

    def __init__(self, sigma_min: Annotated[float, Ge(0)] = 0.0) -> None:
        self.sigma_min = sigma_min

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        """See `Restoration`."""
        return self.sigma_min == 0

    def __call__(
        self, denoise: Denoise, measurement: Measurement, times: Tensor, draws: Draws
    ) -> tuple[Denoise, Walk | None]:
        """See `Restoration`."""
        return denoise, Replacement(self, denoise.process, measurement, draws, self.sigma_min)
