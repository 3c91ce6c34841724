"""The variance of a reverse step: fixed by the schedule, or read from the network."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.level import combine
from langevin.diffusion.reverse import transition
from langevin.diffusion.schedules.schedule import Schedule


class Variance(ABC):
    """The variance of p(x_s | x_t).

    Attributes:
        learned: whether the network predicts it, and so must be trained for it.
    """

    learned = False

    @abstractmethod
    def channels(self, image_channels: int) -> int:
        """How many channels the network puts out for images of `image_channels`."""

    @abstractmethod
    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """The log variance of the step from t to s.

        Args:
            output: the network's channels beyond the image's, (B, C, H, W); None when it has none.
            schedule: the noise schedule.
            s: the time stepped to, 0 <= s < t. At s = 0 it is the variance of the decoder.
            t: the time stepped from.

        Returns:
            float64 of the shape of `t`, or (B, C, H, W) where the network decides.
        """


class FixedSmall(Variance):
    """The posterior's variance beta-tilde: right for a data set of one image. Source: DDPM, section 3.2."""

    def channels(self, image_channels: int) -> int:
        """See `Variance`."""
        return image_channels

    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """See `Variance`."""
        return torch.log(clipped_posterior_variance(schedule, s, t))


class FixedLarge(FixedSmall):
    """The forward step's variance beta: right for data of unit variance. Source: DDPM, section 3.2.

    The decoder's is the small one, as in DDPM's code, for the sake of the likelihood.
    """

    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """See `Variance`."""
        small = super().log_variance(output, schedule, s, t)
        return torch.where(s > 0, torch.log(transition(schedule, s, t).variance), small)


class LearnedRange(Variance):
    """The network chooses between the small and the large: ``log variance = f log beta + (1 - f) log beta-tilde``.

    f is the network's further output, mapped from [-1, 1] to [0, 1]. Source: Improved DDPM (Nichol and Dhariwal 2021),
    equation 15.
    """

    learned = True

    def channels(self, image_channels: int) -> int:
        """See `Variance`."""
        return 2 * image_channels

    def log_variance(self, output: Tensor | None, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
        """See `Variance`."""
        assert output is not None, "a network with learned variance puts out as many channels again"
        small = torch.log(clipped_posterior_variance(schedule, s, t))
        large = torch.log(transition(schedule, s, t).variance)
        fraction = (output + 1) / 2
        return combine(large, fraction, small, 1 - fraction)


def clipped_posterior_variance(schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
    """The posterior's variance, beta-tilde, and in the step to the data that of the next step of the same length.

    Source: DDPM's and Improved DDPM's code, there for the first of T steps.
    """
    posterior = transition(schedule, s, t).posterior_variance
    beyond = (2 * t - s).clamp(max=schedule.t_max)
    # A schedule of a single step has no next: there it is the step's own variance.
    next_one = transition(schedule, torch.where(beyond > t, t, s), beyond)
    clipped = torch.where(beyond > t, next_one.posterior_variance, next_one.variance)
    return torch.where(s > 0, posterior, clipped)
