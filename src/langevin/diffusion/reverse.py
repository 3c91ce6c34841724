"""The exact reverse of the forward process when the image is known."""

from typing import NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.level import combine
from langevin.diffusion.schedules.schedule import Schedule


class Transition(NamedTuple):
    """q(x_t | x_s) for s < t: ``x_t = alpha x_s + sigma eps``, and the variance of q(x_s | x_t, x).

    Attributes:
        alpha: ``alpha_{t|s} = alpha_t / alpha_s``.
        variance: ``sigma^2_{t|s} = sigma_t^2 - alpha_{t|s}^2 sigma_s^2``; adjacent DDPM steps give beta_t.
        posterior_variance: ``sigma^2_{t|s} sigma_s^2 / sigma_t^2``; adjacent DDPM steps give beta-tilde_t.
    """

    alpha: Tensor
    variance: Tensor
    posterior_variance: Tensor


def transition(schedule: Schedule, s: Tensor, t: Tensor) -> Transition:
    """The transition between ANY two times s < t, so that taking fewer steps needs no new schedule.

    Source: Variational Diffusion Models (Kingma et al. 2021), section 3.1 and appendix A.
    """
    at_s, at_t = schedule(s), schedule(t)
    alpha = at_t.alpha / at_s.alpha
    # sigma_t^2 (1 - SNR_t / SNR_s), written with ratios so that near times do not cancel.
    variance = at_t.sigma.square() * -torch.expm1(2 * torch.log(at_s.ratio / at_t.ratio))
    return Transition(alpha, variance, variance * (at_s.sigma / at_t.sigma).square())


def posterior_weights(schedule: Schedule, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """What the mean of q(x_s | x_t, x) is made of: the weights of x and of x_t, each of the shape of `t`."""
    at_s, at_t = schedule(s), schedule(t)
    step = transition(schedule, s, t)
    return at_s.alpha * step.variance / at_t.sigma.square(), step.alpha * (at_s.sigma / at_t.sigma).square()


def posterior_mean(x: Tensor, x_t: Tensor, schedule: Schedule, s: Tensor, t: Tensor) -> Tensor:
    """The mean of q(x_s | x_t, x), shape (B, ...). Source: DDPM (Ho et al. 2020), equation 7, for any s < t."""
    of_x, of_x_t = posterior_weights(schedule, s, t)
    return combine(of_x, x, of_x_t, x_t)
