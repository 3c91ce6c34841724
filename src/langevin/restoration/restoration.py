"""The interface of every method of restoration."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.level import Level, broadcast_to
from langevin.diffusion.process import GaussianProcess, Prediction
from langevin.restoration.operators.operator import Operator
from langevin.restoration.walk import Walk

LARGEST_RATIO = 20
"""Up to this sigma/alpha methods go by dx/dx_t."""
Steer = Callable[[Tensor, Tensor, Condition | None], Prediction]
"""Gives a steered prediction; the arguments are those of `Denoiser.forward`."""


class Measurement(NamedTuple):
    """What is known of each of some samples x: ``y = A x + n``.

    Attributes:
        y: the measurements (B, *measured), in the model's units.
        operator: A.
        noise: the standard deviation of n, in the same units; 0: y is exact.
        shape: (C, *size) of a sample.
        decode: gives the samples of what is diffused.
    """

    y: Tensor
    operator: Operator
    noise: float
    shape: tuple[int, ...]
    decode: Callable[[Tensor], Tensor]

    def residual(self, x: Tensor) -> Tensor:
        """``y - A x`` (B, *measured), for predictions x (B, ...) of what is diffused."""
        return self.y - self.operator(self.decode(x))


class Steered:
    """A model whose predictions agree with a measurement: a `langevin.diffusion.denoiser.Denoise`.

    Args:
        process: the model's.
        steer: gives the predictions.
    """

    def __init__(self, process: GaussianProcess, steer: Steer) -> None:
        self.process = process
        self.steer = steer

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """See `Denoiser.forward`."""
        return self.steer(x_t, t, cond)


class Restoration(ABC):
    """A method that samples what agrees with a measurement, by a model of the samples alone.

    Attributes:
        is_exact: whether a measurement without noise is met in the end, by one last projection.
        walks: whether it acts between the steps, for which a sampler needs `Sampler.independent_steps`.
        takes_noise: whether a measurement may have noise.
        needs_gradient: whether it takes the gradient of a prediction by x_t.
        in_latents: whether it takes measurements of samples where latents are diffused.
    """

    is_exact: ClassVar[bool] = False
    walks: ClassVar[bool] = False
    takes_noise: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = False
    in_latents: ClassVar[bool] = False

    def visited(self, times: Tensor) -> Tensor:
        """The times (steps + 1,) that are visited in place of a sampler's own, which may also rise."""
        return times

    @abstractmethod
    def __call__(
        self, denoise: Denoise, measurement: Measurement, times: Tensor, draws: Draws
    ) -> tuple[Denoise, Walk | None]:
        """What is sampled from, and the walk that a sampler is to take.

        Args:
            denoise: the model, guided or not.
            measurement: what the samples of a batch are to agree with.
            times: those of the sampler, first to last.
            draws: random numbers of these samples, others than the sampler's.
        """


class Visiting(Walk):
    """The way of a method, with nothing between the steps.

    Args:
        method: whose times are visited.
    """

    def __init__(self, method: Restoration) -> None:
        self.method = method

    def times(self, own: Tensor) -> Tensor:
        """See `Walk`."""
        return self.method.visited(own)


class Correction(Restoration):
    """A method that moves each predicted sample, for any sampler: ``x + d``, and the noise that then goes with x_t."""

    def __call__(
        self, denoise: Denoise, measurement: Measurement, times: Tensor, draws: Draws
    ) -> tuple[Denoise, Walk | None]:
        """See `Restoration`."""

        def steer(x_t: Tensor, t: Tensor, cond: Condition | None) -> Prediction:
            prediction, moved = self.correct(denoise, x_t, t, cond, measurement, times)
            level = denoise.process.schedule(t)
            # As a difference, so that where nothing is moved the prediction is the model's to the bit.
            eps = prediction.eps - broadcast_to(level.alpha / level.sigma, moved) * moved
            return prediction._replace(x=prediction.x + moved, eps=eps)

        return Steered(denoise.process, steer), None

    @abstractmethod
    def correct(
        self,
        denoise: Denoise,
        x_t: Tensor,
        t: Tensor,
        cond: Condition | None,
        measurement: Measurement,
        times: Tensor,
    ) -> tuple[Prediction, Tensor]:
        """The model's prediction, and by how much (B, ...) its x is moved.

        Args:
            denoise: the model.
            x_t: noisy samples (B, ...).
            t: their time, () or (B,).
            cond: what they are conditioned on.
            measurement: what they are to agree with.
            times: see `Restoration`.
        """


def says_nothing(level: Level) -> bool:
    """Whether next to nothing of the samples is left in x_t, as at the first times of most schedules.

    ``sigma^2 / alpha dx/dx_t`` is then the covariance of the data (Tweedie's second formula), as a product of thousands
    and a network's small errors: methods take it to be a multiple of the identity.
    """
    return bool((level.ratio > LARGEST_RATIO).any())


def differentiable(
    denoise: Denoise, x_t: Tensor, t: Tensor, cond: Condition | None
) -> tuple[Prediction, Tensor, Tensor]:
    """A prediction without gradients; and x_t and the predicted x, in a graph from one to the other."""
    with torch.enable_grad():
        at = x_t.detach().requires_grad_(True)
        prediction = denoise(at, t, cond)
    fixed = {name: part.detach() for name, part in prediction._asdict().items() if part is not None}
    return prediction._replace(**fixed), at, prediction.x
