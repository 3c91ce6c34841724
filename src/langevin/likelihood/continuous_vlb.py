"""The variational bound in continuous time."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.bound import prior_term
from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import combine
from langevin.diffusion.schedules.schedule import Schedule
from langevin.likelihood.base import Likelihood, per_dim, strata
from langevin.likelihood.interval import Interval, byte_nll, time_at


class ContinuousVLB(Likelihood):
    """The bound of infinitely many steps: half the integral of ``|eps - eps_hat|^2`` over logSNR, and its two ends.

    Its parts are KL(q(x_t | x) || the prior) at the last time ("prior"), the integral ("diffusion"), and
    ``-log p(x | x_t)`` at the first ("decoder"). It does not depend on the path of the noise between its
    ends, nor on the model's variance, and it is the limit of `DiscreteVLB` for T to infinity. On a schedule of discrete
    steps the model is asked at real times between them, for which it was not trained: a network that takes the time as
    a number interpolates well, but the value is that of another model than the one that samples in T steps.
    Source: Variational Diffusion Models (Kingma et al. 2021), equations 11 to 15.

    Args:
        num_times: at how many random times, stratified in logSNR, an image is looked at; for any, it is unbiased.
        log_snr_max: the logSNR of the first time, where the schedule has less noise at its own; VDM learnt 13.3.
        log_snr_min: the logSNR of the last time, where the schedule has more noise at its own.

    Raises:
        UserError: when `log_snr_max` is not above `log_snr_min`.
    """

    parts = ("prior", "diffusion", "decoder")

    def __init__(
        self, num_times: Annotated[int, Ge(1)] = 8, log_snr_max: float = 13.3, log_snr_min: float = -15.0
    ) -> None:
        super().__init__()
        self.num_times = num_times
        self.interval = Interval(log_snr_max, log_snr_min)

    def check(self, schedule: Schedule) -> None:
        """See `Likelihood`.

        Raises:
            UserError: when the whole schedule lies beyond a limit of logSNR.
        """
        self.interval.check(schedule)

    def measure(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> dict[str, Tensor]:
        """See `Likelihood`."""
        schedule = denoise.process.schedule
        first, last = self.interval(schedule)
        start, end = (schedule(time_at(schedule, log_snr)) for log_snr in (first, last))
        decoder = per_dim(byte_nll(x.double(), draws.normal().double(), start))
        diffusion = torch.zeros_like(decoder)
        for place in strata(self.num_times, draws):
            t = time_at(schedule, torch.lerp(first, last, place))
            alpha, sigma = schedule(t)
            eps = draws.normal().to(x)
            prediction = denoise(combine(alpha, x, sigma, eps), t, cond)
            diffusion = diffusion + per_dim((eps - prediction.eps).square())
        diffusion = diffusion * (float(first - last) / (2 * self.num_times))
        return {"prior": prior_term(schedule, x.double(), end), "diffusion": diffusion, "decoder": decoder}
