"""The one sampling loop."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from langevin.diffusion.denoiser import Condition, Denoise
from langevin.diffusion.draws import Draws
from langevin.diffusion.process import Prediction, eps_from_x
from langevin.diffusion.schedules.schedule import Schedule
from langevin.diffusion.schedules.wrapped import Until
from langevin.diffusion.variance import Variance
from langevin.restoration.walk import Walk
from langevin.samplers.thresholding import Thresholding
from langevin.samplers.timestep_spacing import InnerLogSNR, TimestepSpacing, even

State = TypeVar("State")
OnPrediction = Callable[[Tensor, Tensor, Prediction], None]


class Start(NamedTuple):
    """Noisy samples (B, ...) at a time that the schedule's sampling may begin at: whole where it has steps."""

    x_t: Tensor
    t: float


@dataclass(frozen=True)
class Predictor:
    """The model as a sampler calls it: with its condition, thresholding and callback.

    Attributes:
        denoise: the model, guided or not.
        times: all the times of the walk, first to last, float64 (steps + 1,).
        cond: what the images are conditioned on.
        thresholding: keeps each predicted image in range; None: as it is.
        on_prediction: is called with (x_t, t, prediction) after each evaluation of the model.
    """

    denoise: Denoise
    times: Tensor
    cond: Condition | None = None
    thresholding: Thresholding | None = None
    on_prediction: OnPrediction | None = None

    @property
    def schedule(self) -> Schedule:
        """How noise grows with time."""
        return self.denoise.process.schedule

    @property
    def variance(self) -> Variance:
        """The variance of a reverse step."""
        return self.denoise.process.variance

    def __call__(self, x_t: Tensor, t: Tensor) -> Prediction:
        """The prediction for the images `x_t` (B, C, H, W) at the time `t` ()."""
        prediction = self.denoise(x_t, t, self.cond)
        if self.thresholding is not None:
            x = self.thresholding(prediction.x)
            eps = prediction.eps if self.thresholding.keep_eps else eps_from_x(x, x_t, self.schedule(t))
            prediction = prediction._replace(x=x, eps=eps)
        if self.on_prediction is not None:
            self.on_prediction(x_t, t, prediction)
        return prediction


class Sampler(ABC, Generic[State]):
    """Takes noise to images, step by step; a sampler is what it does in one step.

    Args:
        timestep_spacing: the times it visits.
        thresholding: keeps each predicted image in range; None: as it is predicted.
        steps: how many steps it takes; None for all of a discrete schedule.

    Attributes:
        supports_mean_guidance: whether its steps are moved by a `Prediction.mean_gradient`.
        invertible: whether it has an `invert`.
        independent_steps: whether each step evaluates the model once, at its start, and needs nothing of earlier ones.
        higher_order: whether it is of more than first order, and needs steps of similar length in logSNR.
    """

    supports_mean_guidance: ClassVar[bool] = False
    invertible: ClassVar[bool] = False
    independent_steps: ClassVar[bool] = False
    higher_order: ClassVar[bool] = False

    def __init__(self, timestep_spacing: TimestepSpacing, thresholding: Thresholding | None, steps: int | None) -> None:
        self.timestep_spacing = timestep_spacing
        self.thresholding = thresholding
        self.steps = steps

    def own_spacing(self, schedule: Schedule) -> TimestepSpacing:
        """The timestep spacing that suits it, which `timestep_spacing=auto` takes."""
        return InnerLogSNR() if self.higher_order else even(schedule)

    def spacing_on(self, schedule: Schedule) -> TimestepSpacing:
        """The timestep spacing that it uses on a schedule."""
        return self.timestep_spacing.chosen(self.own_spacing(schedule))

    def times(self, schedule: Schedule) -> Tensor:
        """The times that it visits, float64 (steps + 1,), falling, the last 0 or where the spacing ends.

        Raises:
            UserError: when the schedule has none such, see `TimestepSpacing`.
        """
        return self.spacing_on(schedule)(schedule, self.steps)

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoise,
        draws: Draws,
        cond: Condition | None = None,
        on_prediction: OnPrediction | None = None,
        start: Start | None = None,
        walk: Walk | None = None,
    ) -> Tensor:
        """Sample.

        Args:
            denoise: the model, guided or not.
            draws: the samples' random numbers.
            cond: what the samples are conditioned on.
            on_prediction: is called with (x_t, t, prediction) after each evaluation: for progress and trajectories.
            start: where to begin; None: at the process's prior, noise alone, at the last time.
            walk: which times it goes through, and what is done between the steps; None: its own, and nothing.

        Returns:
            samples (B, ...); images in about [-1, 1].
        """
        process = denoise.process
        times = self.times(process.schedule if start is None else Until(process.schedule, start.t))
        times = times if walk is None else walk.times(times)
        predictor = Predictor(denoise, times, cond, self.thresholding, on_prediction)
        x_t = process.prior(times[0], draws) if start is None else start.x_t
        return process.finish(self.walk(predictor, x_t, draws, walk), times[-1], draws)

    def invert(self, denoise: Denoise, x: Tensor, cond: Condition | None = None) -> Tensor:
        """The noise (B, ...), of unit variance, that samples x (B, ...) come from; only if `invertible`."""
        raise NotImplementedError(f"{type(self).__name__} cannot be inverted")

    def walk(self, denoise: Predictor, x: Tensor, draws: Draws, between: Walk | None = None) -> Tensor:
        """Take the samples `x` (B, ...), which are at the first of the predictor's times, to its last.

        Args:
            denoise: the model.
            x: see above.
            draws: the samples' random numbers.
            between: what is done after each step; where its times rise, noise is added; None: there are steps alone.
        """
        state: State | None = None
        for t, s in pairwise(denoise.times):
            if between is not None and s > t:
                x, state = denoise.denoise.process.renoise(x, t, s, draws), None
                continue
            x, state = self.step(denoise, x, t, s, state, draws)
            if between is not None:
                x = between.after(x, t, s)
        return x

    @abstractmethod
    def step(
        self, denoise: Predictor, x_t: Tensor, t: Tensor, s: Tensor, state: State | None, draws: Draws
    ) -> tuple[Tensor, State | None]:
        """One step from time t to time s < t.

        Args:
            denoise: the model; to be called as often as the sampler needs.
            x_t: the images at time t, (B, C, H, W).
            t: the time stepped from, float64 ().
            s: the time stepped to, float64 (); in the last step 0, or where the timestep spacing ends, which may be t.
            state: what the step before handed on; None at first.
            draws: the samples' random numbers.

        Returns:
            the images at time s, which is ``alpha x`` at the data, and the state for the next step.
        """
