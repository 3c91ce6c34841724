"""The variance of a reverse step: fixed by the schedule, or read from the network."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.reverse import transition
from langevin.diffusion.schedules.schedule import Schedule


class Variance(ABC):
    """The variance of p(x_s | x_t)."""

    @abstractmethod
    def channels(self, image_channels: int) -> int:
        """How many channels the network puts out for pictures of `image_channels`."""

    @abstractmethod
    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """The log variance of the step from t to s.

        Args:
            output: the network's channels beyond the picture's, (B, C, H, W); None when it has none.
            schedule: the noise schedule.
            s: the time stepped to, 0 < s < t.
            t: the time stepped from.

        Returns:
            float64 of the shape of `t`, or (B, C, H, W) where the network decides.
        """


class FixedSmall(Variance):
    """The posterior's variance beta-tilde: right for a data set of one picture. Source: DDPM, section 3.2."""

    def channels(self, image_channels: int) -> int:
        """See `Variance`."""
        return image_channels

    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """See `Variance`."""
        return torch.log(transition(schedule, s, t).posterior_variance)


class FixedLarge(FixedSmall):
    """The forward step's variance beta: right for data of unit variance. Source: DDPM, section 3.2."""

    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """See `Variance`."""
        return torch.log(transition(schedule, s, t).variance)
