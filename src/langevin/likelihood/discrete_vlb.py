"""The variational bound of a model with discrete steps."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from langevin.diffusion.bound import prior_term, step_term
from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import combine
from langevin.diffusion.schedules.schedule import Schedule
from langevin.errors import UserError
from langevin.likelihood.base import Likelihood, strata

LEAST_LOG_SNR = -15.0
"""Where steps are no longer drawn more often for a greater fall in logSNR, which is infinite to pure noise."""


class DiscreteVLB(Likelihood):
    """``L_T + sum over t of L_{t-1} + L_0``: the bound that ancestral sampling in all T steps has.

    Its parts are L_T ("prior"), the sum of the steps' terms ("steps") and L_0 ("decoder"). `compute` also gives the
    means of all T terms by themselves, "terms" (T,): L_0 first, nan where a time was never drawn.

    L_0 is always evaluated. The other times are all of 2..T, or a sample of them, stratified and more of the larger
    terms, which leaves the bound unbiased: the model is asked ``num_times + 1`` times for each image.
    Source: DDPM (Ho et al. 2020), equations 5 and 13; Improved DDPM (Nichol and Dhariwal 2021), section 3.

    Args:
        num_times: how many random times of an image; None, or as many as there are: every one.
        clip: keep the predicted image in [-1, 1], where the data is. It can only lower the bound; DDPM's and Improved
            DDPM's figures are computed so.
    """

    parts = ("prior", "steps", "decoder")

    term_sum: Tensor
    term_count: Tensor

    def __init__(self, num_times: Annotated[int, Ge(1)] | None = None, clip: bool = True) -> None:
        super().__init__()
        self.num_times = num_times
        self.clip = clip

    def check(self, schedule: Schedule) -> None:
        """See `Likelihood`.

        Raises:
            UserError: for a schedule in continuous time.
        """
        if schedule.num_steps is None:
            raise UserError(
                "is a sum over discrete steps, but the schedule is continuous; allowed: likelihoods=[continuous_vlb], "
                "likelihoods=[probability_flow], or a schedule with num_steps"
            )

    def begin(self, schedule: Schedule) -> None:
        """See `Likelihood`."""
        super().begin(schedule)
        assert schedule.num_steps is not None
        self._add_sum("term_sum", schedule.num_steps)
        self._add_sum("term_count", schedule.num_steps, dtype=torch.int64)

    def terms(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """The times at which each image is evaluated, and the bound's terms there.

        Args:
            denoise: as in `measure`, like all that follows.
            x: the images.
            cond: the condition.
            draws: the images' random numbers.

        Returns:
            int64 (n, B) on the CPU, the first row 1; how many terms each represents, float64 (n, B) on the CPU; and the
            terms, float64 (n, B), in nats a dimension.
        """
        probabilities = self._probabilities(denoise.process.schedule)
        first = torch.ones(len(x), dtype=torch.int64)
        if self.num_times is None or self.num_times >= len(probabilities):
            times = torch.stack([first * t for t in range(1, len(probabilities) + 2)])
            weights = torch.ones(times.shape, dtype=torch.float64)
        else:
            places = torch.stack(list(strata(self.num_times, draws)))
            drawn = torch.searchsorted(probabilities.cumsum(0), places).clamp(max=len(probabilities) - 1)
            times = torch.cat([first[None], drawn + 2])
            inner = 1 / (self.num_times * probabilities[drawn])
            weights = torch.cat([torch.ones(1, len(x), dtype=torch.float64), inner])
        return times, weights, torch.stack([self._term(denoise, x, cond, draws.normal(), t.double()) for t in times])

    def _probabilities(self, schedule: Schedule) -> Tensor:
        """How often each of the times 2..T is drawn: as the terms are large, if half the time, else evenly.

        A term is about half of the step's fall in logSNR, times a squared error of the noise that changes slowly.
        """
        assert schedule.num_steps is not None
        times = torch.arange(1, schedule.num_steps + 1, dtype=torch.float64)
        fall = -schedule(times).log_snr.clamp(min=LEAST_LOG_SNR).diff()
        return (fall / fall.sum() + 1 / max(len(fall), 1)) / 2

    def _term(self, denoise: Denoise, x: Tensor, cond: Condition | None, eps: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = denoise.process.schedule(t)
        prediction = denoise(combine(alpha, x, sigma, eps.to(x)), t, cond)
        x_hat = prediction.x.clamp(-1, 1) if self.clip else prediction.x
        # In float64: a thousand terms are added, the smallest of them differences of near numbers.
        return step_term(denoise, prediction._replace(x=x_hat.double()), x.double(), t - 1, t)

    def measure(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> dict[str, Tensor]:
        """See `Likelihood`."""
        return self._summed(denoise.process.schedule, x, *self.terms(denoise, x, cond, draws)[1:])

    def _summed(self, schedule: Schedule, x: Tensor, weights: Tensor, terms: Tensor) -> dict[str, Tensor]:
        steps = (weights[1:].to(terms.device) * terms[1:]).sum(0)
        return {"prior": prior_term(schedule, x.double()), "steps": steps, "decoder": terms[0]}

    def update(self, denoise: Denoise, x: Tensor, cond: Condition | None, draws: Draws) -> None:
        """See `Likelihood`."""
        times, weights, terms = self.terms(denoise, x, cond, draws)
        self._count_in(self._summed(denoise.process.schedule, x, weights, terms))
        index = times.flatten().to(terms.device) - 1
        term_sum = torch.zeros_like(self.term_sum).index_add_(0, index, terms.flatten())
        self._accumulate(term_sum=term_sum, term_count=torch.bincount(index, minlength=len(self.term_count)))

    def compute(self) -> dict[str, Tensor]:
        """See `Likelihood`, and "terms" (T,)."""
        return super().compute() | {"terms": self.term_sum / self.term_count / math.log(2)}
