"""How samples come out of noise."""

from collections.abc import Callable

import torch
from torch import Tensor

from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule


class Trajectory:
    """Records a batch being sampled; to be given to the sampler as `on_prediction`.

    Args:
        schedule: how noise grows with time.
        count: how many of the batch's first samples are recorded.
        show: gives stored samples of what is diffused, noisy or not.

    Attributes:
        times: of each evaluation of the model, in turn.
        x_t: the noisy samples there, as stored, (count, C, *size), brought to unit variance so that they can be seen.
        x: the predicted ones, likewise.
        is_complete: set to stop recording: what comes then is another batch.
    """

    def __init__(self, schedule: Schedule, count: int, show: Callable[[Tensor], Tensor]) -> None:
        self.schedule = schedule
        self.count = count
        self.show = show
        self.times: list[float] = []
        self.x_t: list[Tensor] = []
        self.x: list[Tensor] = []
        self.is_complete = False

    def __call__(self, x_t: Tensor, t: Tensor, prediction: Prediction) -> None:
        """Record an evaluation."""
        if self.is_complete:
            return
        alpha, sigma = self.schedule(t)
        self.times.append(float(t))
        self.x_t.append(self.show(x_t[: self.count] / broadcast_to(torch.hypot(alpha, sigma), x_t)).cpu())
        self.x.append(self.show(prediction.x[: self.count]).cpu())

    def chosen(self, num_times: int) -> tuple[list[Tensor], list[Tensor]]:
        """The noisy and the predicted samples at `num_times` times, evenly spread; at all if there are fewer."""
        places = self._places(num_times)
        return [self.x_t[place] for place in places], [self.x[place] for place in places]

    def labels(self, num_times: int) -> list[str]:
        """What the same times are labelled with."""
        return [f"t={self.times[place]:.4g}" for place in self._places(num_times)]

    def _places(self, num_times: int) -> list[int]:
        return torch.linspace(0, len(self.times) - 1, min(num_times, len(self.times))).round().long().tolist()
