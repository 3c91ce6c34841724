"""Pictures of what the model makes, as it learns."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from langevin.diffusion.denoiser import Prediction
from langevin.errors import UserError
from langevin.images import picture_grid, to_uint8
from langevin.samplers.generate import Generator
from langevin.training.callbacks.periodic import Periodic, publish_picture
from langevin.training.module import DiffusionModule

# The side in pixels that small pictures are enlarged to in a PNG, so that one can see them.
VISIBLE_SIDE = 64


class SampleGrid(Periodic):
    """A grid of samples from the same noise every time, so that pictures compare over time.

    Args:
        generator: makes pictures.
        run_dir: the run's folder; the PNGs go to `samples`.
        every_n_steps: how often; at least 1.
        num_samples: how many pictures; at least 1.
        columns: pictures in a row; at least 1.
        seed: the noise's seed.

    Raises:
        UserError: when an argument leaves its range.
    """

    def __init__(
        self,
        generator: Generator,
        run_dir: Path,
        every_n_steps: int = 5000,
        num_samples: int = 64,
        columns: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        if num_samples < 1 or columns < 1:
            raise UserError(f"num_samples is {num_samples} and columns {columns}; allowed: at least 1 each")
        self.generator = generator
        self.directory = run_dir / "samples"
        self.num_samples = num_samples
        self.columns = columns
        self.seed = seed

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample on the first rank; the others go on to wait for it at the next step."""
        if not trainer.is_global_zero:
            return
        (batch,) = self.generator(
            module.averaged_denoiser, range(self.num_samples), self.seed, self.num_samples, module.device
        )
        scale = max(1, VISIBLE_SIDE // self.generator.shape[-1])
        publish_picture(trainer, self.directory, "samples", picture_grid(batch.images, self.columns), scale)


class Trajectory(Periodic):
    """How pictures come out of noise: a row a picture, x_t and below it the predicted x, at times along the way.

    Args:
        generator: makes pictures.
        run_dir: the run's folder; the PNGs go to `samples`.
        every_n_steps: how often; at least 1.
        num_samples: how many pictures; at least 1.
        num_times: how many columns; at least 2.
        seed: the noise's seed.

    Raises:
        UserError: when an argument leaves its range.
    """

    def __init__(
        self,
        generator: Generator,
        run_dir: Path,
        every_n_steps: int = 5000,
        num_samples: int = 4,
        num_times: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(every_n_steps)
        if num_samples < 1 or num_times < 2:
            raise UserError(f"num_samples is {num_samples} and num_times {num_times}; allowed: at least 1 and 2")
        self.generator = generator
        self.directory = run_dir / "samples"
        self.num_samples = num_samples
        self.num_times = num_times
        self.seed = seed

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample on the first rank, looking on."""
        if not trainer.is_global_zero:
            return
        seen: list[tuple[Tensor, Tensor]] = []

        def look(x_t: Tensor, t: Tensor, prediction: Prediction) -> None:
            seen.append((to_uint8(x_t), to_uint8(prediction.x)))

        (batch,) = self.generator(
            module.averaged_denoiser, range(self.num_samples), self.seed, self.num_samples, module.device, look
        )
        chosen = torch.linspace(0, len(seen) - 1, min(self.num_times, len(seen))).round().long().tolist()
        rows = []
        for image in range(self.num_samples):
            for part in (0, 1):
                rows += [seen[time][part][image] for time in chosen] + [batch.images[image]]
        scale = max(1, VISIBLE_SIDE // self.generator.shape[-1])
        picture = picture_grid(torch.stack(rows), len(chosen) + 1)
        publish_picture(trainer, self.directory, "trajectory", picture, scale)
