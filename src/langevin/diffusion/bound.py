"""The variational bound on the likelihood, term by term.

All terms are in nats a dimension, one number per image (B,); divide by log 2 for bits.
Source: DDPM (Ho et al. 2020), equations 5 and 13.
"""

import math

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Denoise
from langevin.diffusion.level import Level, broadcast_to
from langevin.diffusion.process import Prediction
from langevin.diffusion.reverse import posterior_weights, transition
from langevin.diffusion.schedules.schedule import Schedule

HALF_BIN = 1 / 255
"""Half the distance of two of the 256 values of a byte on [-1, 1]."""


def gaussian_kl(difference: Tensor, log_variance_q: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q || p) of two Gaussians whose means lie `difference` apart, element by element."""
    gap = log_variance_q - log_variance_p
    # Late steps have a gap of about 1 / T, whose square would drown in the rounding of exp(gap) - 1.
    return 0.5 * (torch.expm1(gap) - gap + difference.square() * torch.exp(-log_variance_p))


def decoder_nll(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Minus the log of a Gaussian's mass on each byte's bin, element by element; the outermost bins are open.

    Args:
        x: images of bytes, in [-1, 1].
        mean: of the Gaussian, of the shape of `x`.
        log_variance: of the Gaussian, of a shape that multiplies with `x`.
    """
    precision = torch.exp(-0.5 * log_variance)
    # A finite stand-in for infinity, at which the gradient is no nan.
    upper = torch.where(x > 0.999, 1e4, precision * (x - mean + HALF_BIN))
    lower = torch.where(x < -0.999, -1e4, precision * (x - mean - HALF_BIN))
    # The mass between the two is taken on the side of the mean where it is the difference of small numbers.
    beyond = lower > 0
    more = log_normal_cdf(torch.where(beyond, -lower, upper))
    less = log_normal_cdf(torch.where(beyond, -upper, lower))
    return -(more + torch.log(-torch.expm1((less - more).clamp(max=-1e-7))))


def log_normal_cdf(z: Tensor) -> Tensor:
    """The log of the standard normal's cumulative distribution, its gradient right in float32, however small it is.

    The gradient of ``torch.special.log_ndtr`` is lost to rounding a few hundred standard deviations out, which is where
    an untrained network's images lie.
    """
    tail, body = z.clamp(max=-1), z.clamp(min=-1)
    in_tail = torch.log(torch.special.erfcx(-tail / math.sqrt(2)) / 2) - tail.square() / 2
    return torch.where(z < -1, in_tail, torch.log1p(-torch.erfc(body / math.sqrt(2)) / 2))


def prior_std(schedule: Schedule, level: Level) -> Tensor:
    """The standard deviation of the noise that takes the images' place at `level`, near the schedule's last one.

    It is the schedule's own at the last level, and before it as much less as sigma is.
    """
    return schedule.prior_std * level.sigma / last_level(schedule).sigma


def prior_term(schedule: Schedule, x: Tensor, level: Level | None = None) -> Tensor:
    """L_T: KL(q(x_t | x) || N(0, prior_std^2)) at `level`; None: at the schedule's last."""
    level = last_level(schedule) if level is None else level
    log_variances = (broadcast_to(2 * torch.log(std), x) for std in (level.sigma, prior_std(schedule, level)))
    return gaussian_kl(broadcast_to(level.alpha, x) * x, *log_variances).flatten(1).mean(1)


def last_level(schedule: Schedule) -> Level:
    """The schedule's level of most noise."""
    return schedule(torch.tensor(schedule.t_max, dtype=torch.float64))


def step_term(denoise: Denoise, prediction: Prediction, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """L_{t-1}: KL(q(x_s | x_t, x) || p(x_s | x_t)); at s = 0 it is L_0, the decoder's -log p(x | x_t).

    Args:
        denoise: the model, for its schedule and variance.
        prediction: its prediction for x_t.
        x: the images (B, C, H, W), of bytes, in [-1, 1].
        s: the times stepped to, (B,) or ().
        t: the times stepped from, (B,) or ().
    """
    schedule = denoise.process.schedule
    log_variance = broadcast_to(denoise.process.variance.log_variance(prediction.variance, schedule, s, t), x)
    of_x = broadcast_to(posterior_weights(schedule, s, t)[0], x)
    inner = broadcast_to(s > 0, x).bool()
    log_posterior = broadcast_to(torch.log(transition(schedule, s, t).posterior_variance), x)
    # At the decoder's step, the divergence is that of equal variances, which is finite and not used.
    log_posterior = torch.where(inner, log_posterior, log_variance)
    kl = gaussian_kl(of_x * (x - prediction.x), log_posterior, log_variance)
    if not bool((s > 0).all()):  # the decoder is costly, and speaks at s = 0 alone
        kl = torch.where(inner, kl, decoder_nll(x, prediction.x, log_variance.expand_as(x)))
    return kl.flatten(1).mean(1)
