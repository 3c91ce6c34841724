"""How much the error at each noise level counts, stated as a weight on the error of x."""

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import clipped_posterior_variance


class Weighting(ABC):
    """A weight on ``|x - x_theta|^2`` as a function of the noise level.

    The objective converts it to the network's own output, so that a weighting means the same for every
    parameterization.
    """

    @abstractmethod
    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """The weight at the times `t`: float64 of the shape of `t`, at least 0."""


class UnitEps(Weighting):
    """The eps error has equal weight at every noise level: the weight is the SNR. It is DDPM's L_simple.

    Source: DDPM (Ho et al. 2020), equation 14.
    """

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return schedule(t).snr


class UnitX(Weighting):
    """The x error has equal weight at every noise level: the weight is 1."""

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return torch.ones_like(t)


class UnitV(Weighting):
    """The v error has equal weight at every noise level: ``SNR + 1``.

    Source: progressive distillation (Salimans and Ho 2022), section 4, "SNR+1".
    """

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return schedule(t).snr + 1


class UnitFlow(Weighting):
    """The eps - x error has equal weight at every noise level: ``(1 + alpha / sigma)^2``. It is flow matching's loss.

    Source: flow matching (Lipman et al. 2023), equation 9 on straight lines.
    """

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        alpha, sigma = schedule(t)
        return (1 + alpha / sigma).square()


class TruncatedSNR(Weighting):
    """``max(SNR, floor)``. Source: progressive distillation (Salimans and Ho 2022), section 4, "truncated SNR".

    Args:
        floor: the least weight.
    """

    def __init__(self, floor: Annotated[float, Gt(0)] = 1.0) -> None:
        self.floor = floor

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return schedule(t).snr.clamp(min=self.floor)


class MinSNR(Weighting):
    """``min(SNR, gamma)``. Source: min-SNR weighting (Hang et al. 2023), equation 12.

    Args:
        gamma: the greatest weight.
    """

    def __init__(self, gamma: Annotated[float, Gt(0)] = 5.0) -> None:
        self.gamma = gamma

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return schedule(t).snr.clamp(max=self.gamma)


class P2(Weighting):
    """``SNR / (k + SNR)^gamma``: L_simple with less weight where little noise is left.

    Source: perception prioritized training (Choi et al. 2022), equation 8.

    Args:
        k: keeps the weight finite.
        gamma: how strongly little noise is weighed down; 0 is L_simple.
    """

    def __init__(self, k: Annotated[float, Gt(0)] = 1.0, gamma: Annotated[float, Ge(0)] = 1.0) -> None:
        self.k, self.gamma = k, gamma

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        snr = schedule(t).snr
        return snr / (self.k + snr) ** self.gamma


class EDMWeighting(Weighting):
    """``SNR + 1 / sigma_data^2``: EDM's preconditioned network output has equal weight at every level.

    It is ``(sigma^2 + sigma_data^2) / (sigma sigma_data)^2`` for alpha = 1. Source: EDM (Karras et al. 2022), table 1.

    Args:
        sigma_data: the standard deviation of the data, as in the parameterization.
    """

    def __init__(self, sigma_data: Annotated[float, Gt(0)] = 0.5) -> None:
        self.sigma_data = sigma_data

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return schedule(t).snr + self.sigma_data**-2


class VLBWeighting(Weighting):
    """The variational bound's: ``-SNR' / 2`` in continuous time, ``T (SNR(t - 1) - SNR(t)) / 2`` with T steps.

    So the mean of the loss over uniform times is the bound in nats a dimension, up to the prior's term and, with
    continuous time, the decoder's. With steps, the first weighs as a Gaussian decoder of clipped variance. The clock
    does not matter: time runs over [0, 1] here. Source: variational diffusion models (Kingma et al. 2021), equations
    13 and 17.
    """

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        if schedule.num_steps is None:
            (alpha, sigma), rate = schedule(t), schedule.rate(t)
            # -d(alpha^2 / sigma^2)/dt / 2
            return schedule.t_max * alpha * (alpha * rate.sigma - sigma * rate.alpha) / sigma**3
        s = t - 1
        difference = schedule(s).snr - schedule(t).snr
        difference = torch.where(s > 0, difference, 1 / clipped_posterior_variance(schedule, s, t))
        return schedule.num_steps / 2 * difference


class SigmoidWeighting(VLBWeighting):
    """The variational bound's with ``S(bias - logSNR)`` on top, S the logistic function: little noise counts less.

    Source: Kingma and Gao 2023 (arXiv 2303.00848), section 4; simpler diffusion (Hoogeboom et al. 2024).

    Args:
        bias: the logSNR at which the weight is halved.
    """

    def __init__(self, bias: float = 2.0) -> None:
        self.bias = bias

    def __call__(self, schedule: Schedule, t: Tensor) -> Tensor:
        """See `Weighting`."""
        return super().__call__(schedule, t) * torch.sigmoid(self.bias - schedule(t).log_snr)
