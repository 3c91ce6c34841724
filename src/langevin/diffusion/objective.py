"""What is minimised."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoiser
from langevin.diffusion.level import combine, like
from langevin.diffusion.time_sampler import TimeSampler
from langevin.diffusion.weighting import Weighting


class Objective(ABC):
    """The loss of a batch of clean pictures."""

    @abstractmethod
    def __call__(self, denoiser: Denoiser, x: Tensor, cond: Condition | None) -> dict[str, Tensor]:
        """The terms of the loss, one number a picture.

        Args:
            denoiser: the model.
            x: clean pictures (B, C, H, W) in [-1, 1].
            cond: what the model is conditioned on.

        Returns:
            tensors of shape (B,), among them "loss", whose mean is minimised.
        """


class Simple(Objective):
    """The weighted squared error of the network's prediction at one random time a picture.

    The error is taken on the network's own output F, where it is computed without loss of precision, and scaled to
    what the weighting means by it: at a given x_t, ``|F error| = |alpha b - sigma a| / sigma * |x error|``.

    Source: DDPM (Ho et al. 2020), equation 14, for any parameterization and weighting.

    Args:
        weighting: how much each noise level counts.
        time_sampler: where the times come from.
    """

    def __init__(self, weighting: Weighting, time_sampler: TimeSampler) -> None:
        self.weighting = weighting
        self.time_sampler = time_sampler

    def __call__(self, denoiser: Denoiser, x: Tensor, cond: Condition | None) -> dict[str, Tensor]:
        """See `Objective`; "mse" is the unweighted squared error of the network's own output."""
        schedule = denoiser.schedule
        t, importance = self.time_sampler.sample(len(x), schedule)
        eps = torch.randn_like(x)
        level = schedule(t)
        prediction = denoiser(combine(level.alpha, x, level.sigma, eps), t, cond)
        a, b = denoiser.parameterization.mix(schedule, t)
        mse = (prediction.raw - combine(a, x, b, eps)).square().flatten(1).mean(1)
        scale = (level.sigma / (level.alpha * b - level.sigma * a)).square()
        return {"loss": like(importance * self.weighting(level) * scale, mse) * mse, "mse": mse.detach()}
