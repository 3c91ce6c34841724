"""The likelihood under the probability-flow ODE."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.bound import prior_std
from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import Level, combine
from langevin.diffusion.schedules.schedule import Schedule
from langevin.likelihood.base import Likelihood, per_dim
from langevin.likelihood.interval import Interval, byte_nll, time_at


class ProbabilityFlow(Likelihood):
    """A bound on the probability of bytes from the density that the probability-flow ODE gives the noisy image.

    ``log P(x) >= E [log p(x | y) + log p(y) - log q(y | x)]``, where y is the image with the noise of the first time,
    ``p(x | y)`` the decoder of `ContinuousVLB`, and log p(y) the prior's log-density at the end of the ODE through y,
    plus the log-determinant of the flow. So it is comparable with the variational bounds. Its parts are minus the first
    ("decoder"), minus the last ("encoder"), and minus the two logarithms of p(y) ("prior", "volume").

    The ODE is solved for ``y = x_t / sqrt(alpha^2 + sigma^2)``, which neither grows nor shrinks on any schedule:
    ``dy / d log(sigma / alpha) = s (eps_hat - s y)`` with ``s = sigma / sqrt(alpha^2 + sigma^2)``. It is a classical
    Runge-Kutta method (of order 4) in equal steps of logSNR. The steps are fixed, so that the value of an image does
    not depend on its batch; each evaluates the model four times, forward and backward. On pixels that are bytes of a
    Gaussian, it errs by 1e-2 bits a dimension in 25 steps, by 3e-4 in 50 and by 1e-5 in 100. The
    divergence is estimated from random signs (Hutchinson's trace), new ones at every step, which leaves it unbiased.
    Source: Score-SDE (Song et al. 2021), appendix D.2; FFJORD (Grathwohl et al. 2019), section 3.1.

    Args:
        steps: how many steps the ODE is solved in.
        probes: how many random images of signs estimate the divergence at each step.
        log_snr_max: the logSNR of the first time, where the schedule has less noise at its own.
        log_snr_min: the logSNR of the last time, where the schedule has more noise at its own.

    Raises:
        UserError: when `log_snr_max` is not above `log_snr_min`.
    """

    parts = ("prior", "volume", "encoder", "decoder")

    def __init__(
        self,
        steps: Annotated[int, Ge(1)] = 50,
        probes: Annotated[int, Ge(1)] = 1,
        log_snr_max: float = 13.3,
        log_snr_min: float = -15.0,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.probes = probes
        self.interval = Interval(log_snr_max, log_snr_min)

    def check(self, schedule: Schedule) -> None:
        """See `Likelihood`.

        Raises:
            UserError: when the whole schedule lies beyond a limit of logSNR.
        """
        self.interval.check(schedule)

    def measure(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> dict[str, Tensor]:
        """See `Likelihood`."""
        # Lightning validates in inference mode, whose tensors allow no gradient: they are copied out of it.
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone()
            cond = None if cond is None else {name: value.clone() for name, value in cond.items()}
            schedule = denoise.process.schedule
            start = schedule(time_at(schedule, self.interval(schedule)[0]))
            eps = draws.normal().double()
            std = start.sigma / norm(start)
            y = combine(start.alpha / norm(start), x.double(), std, eps)
            prior, volume = self.density(denoise, y, cond, draws, x.dtype)
            encoder = -per_dim(eps.square()) / 2 - 0.5 * math.log(2 * math.pi) - float(torch.log(std))
            decoder = per_dim(byte_nll(x.double(), eps, start))
        return {"prior": -prior, "volume": -volume, "encoder": encoder, "decoder": decoder}

    def density(
        self, denoise: Denoise, y: Tensor, cond: Condition | None, draws: Draws, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The two terms of ``log p(y)`` at the first time, in nats a dimension: float64 (B,) each.

        Args:
            denoise: the model.
            y: ``x_t / sqrt(alpha^2 + sigma^2)`` at the first time, float64 (B, C, H, W).
            cond: what the model is conditioned on.
            draws: the images' random numbers.
            dtype: of the model's input.

        Returns:
            the log-density of the prior where the ODE through y ends, and the flow's log-determinant.
        """
        schedule = denoise.process.schedule
        first, last = self.interval(schedule)
        # log(sigma / alpha) is half of minus logSNR.
        log_ratios = torch.linspace(float(-first / 2), float(-last / 2), 2 * self.steps + 1, dtype=torch.float64)
        times = time_at(schedule, -2 * log_ratios)
        h = float(log_ratios[2] - log_ratios[0])
        volume = torch.zeros(len(y), dtype=y.dtype, device=y.device)
        for step in range(self.steps):
            signs = [torch.where(draws.normal() < 0, -1.0, 1.0).to(y.device, dtype) for _ in range(self.probes)]
            begin, middle, end = times[2 * step : 2 * step + 3]
            k1, d1 = velocity(denoise, y, begin, cond, signs)
            k2, d2 = velocity(denoise, y + h / 2 * k1, middle, cond, signs)
            k3, d3 = velocity(denoise, y + h / 2 * k2, middle, cond, signs)
            k4, d4 = velocity(denoise, y + h * k3, end, cond, signs)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            volume = volume + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        level = schedule(times[-1])
        std = float(prior_std(schedule, level) / norm(level))
        prior = -per_dim((y / std).square()) / 2 - 0.5 * math.log(2 * math.pi) - math.log(std)
        return prior, volume


def norm(level: Level) -> Tensor:
    """``sqrt(alpha^2 + sigma^2)``."""
    return torch.hypot(level.alpha, level.sigma)


def velocity(
    denoise: Denoise, y: Tensor, t: Tensor, cond: Condition | None, signs: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """``dy / d log(sigma / alpha)`` at the time `t`, float64 (B, C, H, W), and its divergence a dimension, (B,).

    Args:
        denoise: the model.
        y: ``x_t / sqrt(alpha^2 + sigma^2)``, float64.
        t: the time, float64 ().
        cond: what the model is conditioned on.
        signs: images of -1 and 1, in the model's type, that estimate the divergence of its prediction.
    """
    level = denoise.process.schedule(t)
    scale, s = float(norm(level)), float(level.sigma / norm(level))
    with torch.enable_grad():
        x_t = (scale * y).to(signs[0].dtype).requires_grad_()
        eps = denoise(x_t, t, cond).eps
        # One product with the Jacobian a probe; the graph goes with this call.
        products = [torch.autograd.grad(eps, x_t, v, retain_graph=True)[0] for v in signs]
    trace = torch.stack([per_dim(v * product) for v, product in zip(signs, products, strict=True)]).mean(0)
    return s * (eps.detach().double() - s * y), s * (scale * trace - s)
