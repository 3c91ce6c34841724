"""How much the error at each noise level counts, stated as a weight on the error of x."""

from abc import ABC, abstractmethod

from torch import Tensor

from langevin.diffusion.level import Level


class Weighting(ABC):
    """A weight on ``|x - x_theta|^2`` as a function of the noise level."""

    @abstractmethod
    def __call__(self, level: Level) -> Tensor:
        """The weight at each level: float64 of the level's shape, at least 0."""


class UnitEps(Weighting):
    """Every noise level's eps error counts alike, which weighs the error of x by the SNR: DDPM's L_simple.

    Source: DDPM (Ho et al. 2020), equation 14.
    """

    def __call__(self, level: Level) -> Tensor:
        """See `Weighting`."""
        return level.snr
