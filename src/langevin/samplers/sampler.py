"""The one sampling loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise, Prediction, eps_from_x
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.variance import Variance
from langevin.errors import UserError
from langevin.samplers.grid import TimeGrid
from langevin.samplers.noise import NoiseSource

State = TypeVar("State")
OnPrediction = Callable[[Tensor, Tensor, Prediction], None]


@dataclass(frozen=True)
class Predictor:
    """The model as a sampler sees it: bound to its condition, thresholded, and watched.

    Attributes:
        denoise: the model, guided or not.
        cond: what the pictures are conditioned on.
        clip: whether each predicted picture is clamped to [-1, 1], its noise following suit.
        on_prediction: is called with (x_t, t, prediction) after each evaluation of the model.
    """

    denoise: Denoise
    cond: Condition | None
    clip: bool
    on_prediction: OnPrediction | None

    @property
    def schedule(self) -> Schedule:
        """How noise grows with time."""
        return self.denoise.schedule

    @property
    def variance(self) -> Variance:
        """The variance of a reverse step."""
        return self.denoise.variance

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        """The prediction for the pictures `x_t` (B, C, H, W) at the time `t` ()."""
        prediction = self.denoise(x_t, t, self.cond)
        if self.clip:
            x = prediction.x.clamp(-1, 1)
            prediction = prediction._replace(x=x, eps=eps_from_x(x, x_t, self.schedule(t)))
        if self.on_prediction is not None:
            self.on_prediction(x_t, t, prediction)
        return prediction


class Sampler(ABC, Generic[State]):
    """Takes noise to pictures, step by step; a sampler is what it does in one step.

    Args:
        grid: the times it visits.
        steps: how many steps it takes; None for all of a discrete schedule.
        clip: whether each predicted picture is clamped to [-1, 1] (static thresholding).

    Raises:
        UserError: when steps is below 1.
    """

    def __init__(self, grid: TimeGrid, steps: int | None, clip: bool) -> None:
        if steps is not None and steps < 1:
            raise UserError(f"steps is {steps}; allowed: at least 1, or null for all of the schedule's")
        self.grid = grid
        self.steps = steps
        self.clip = clip

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoise,
        noise: NoiseSource,
        cond: Condition | None = None,
        on_prediction: OnPrediction | None = None,
    ) -> Tensor:
        """Sample.

        Args:
            denoise: the model, guided or not.
            noise: gives standard normal noise (B, C, H, W), anew at every call.
            cond: what the pictures are conditioned on.
            on_prediction: is called with (x_t, t, prediction) after each evaluation: for progress and trajectories.

        Returns:
            pictures (B, C, H, W), in about [-1, 1].
        """
        predictor = Predictor(denoise, cond, self.clip, on_prediction)
        x = noise() * denoise.schedule.prior_std
        state: State | None = None
        for t, s in pairwise(self.grid(denoise.schedule, self.steps)):
            x, state = self.step(predictor, x, t, s, state, noise)
        return x

    @abstractmethod
    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: State | None, noise: NoiseSource
    ) -> tuple[Tensor, State | None]:
        """One step from time t to time s < t.

        Args:
            denoise: the model; to be called as often as the sampler needs.
            x_t: the pictures at time t, (B, C, H, W).
            t: the time stepped from, float64 ().
            s: the time stepped to, float64 (); 0 in the last step.
            state: what the step before handed on; None at first.
            noise: gives fresh standard normal noise.

        Returns:
            the pictures at time s, and the state for the next step.
        """
