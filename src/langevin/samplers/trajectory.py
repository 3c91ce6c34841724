"""How images come out of noise."""

import torch
from torch import Tensor

from langevin.diffusion.level import broadcast_to
from langevin.diffusion.process import Prediction
from langevin.diffusion.schedules.schedule import Schedule
from langevin.images import to_uint8


class Trajectory:
    """Records a batch being sampled; to be given to the sampler as `on_prediction`.

    Args:
        schedule: how noise grows with time.
        count: how many of the batch's first images are recorded.

    Attributes:
        times: of each evaluation of the model, in turn.
        x_t: the noisy images there, uint8 (count, C, H, W), brought to unit variance so that they can be seen.
        x: the predicted ones, uint8 (count, C, H, W).
        is_complete: set to stop recording: what comes then is another batch.
    """

    def __init__(self, schedule: Schedule, count: int) -> None:
        self.schedule = schedule
        self.count = count
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
        self.x_t.append(to_uint8(x_t[: self.count] / broadcast_to(torch.hypot(alpha, sigma), x_t)).cpu())
        self.x.append(to_uint8(prediction.x[: self.count]).cpu())

    def rows(self, images: Tensor, num_times: int) -> Tensor:
        """Two rows per image, x_t and below it the predicted x, at `num_times` times, then the finished image.

        Args:
            images: the finished images, uint8 (B, C, H, W); the first `count` are shown.
            num_times: how many times, evenly spread over the evaluations; all of them if there are fewer.

        Returns:
            uint8 (2 * count * columns, C, H, W), row by row; there are `columns(num_times)` in a row.
        """
        chosen = torch.linspace(0, len(self.times) - 1, self.columns(num_times) - 1).round().long().tolist()
        rows = []
        for index, image in enumerate(images[: self.count].cpu()):
            for seen in (self.x_t, self.x):
                rows += [seen[time][index] for time in chosen] + [image]
        return torch.stack(rows)

    def columns(self, num_times: int) -> int:
        """How many images are in a row."""
        return min(num_times, len(self.times)) + 1
