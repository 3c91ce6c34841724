"""What the network's output means.

Every parameterization is one row ``F = a x + b eps`` beside the row ``x_t = alpha x + sigma eps``; one 2x2 inverse
gives x and eps back (`langevin.diffusion.denoiser`). A new one is a class with `mix`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.level import Level
from langevin.diffusion.schedules.schedule import Schedule


class Parameterization(ABC):
    """The network's output as a mixture ``F = a x + b eps``, and how its input is presented to it."""

    @abstractmethod
    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """The coefficients (a, b) at the times `t`, each of the shape of `t`, float64."""

    def c_in(self, level: Level) -> Tensor:
        """What x_t is multiplied by on its way into the network: to unit variance, for data of unit variance."""
        return (level.alpha.square() + level.sigma.square()).rsqrt()

    def c_noise(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The number by which the network is told the noise level: the time on the scale 0..1000."""
        return schedule.clock(t)


class Eps(Parameterization):
    """The network predicts the noise: (a, b) = (0, 1). Source: DDPM (Ho et al. 2020), equation 12."""

    def mix(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        """See `Parameterization`."""
        return torch.zeros_like(t), torch.ones_like(t)
