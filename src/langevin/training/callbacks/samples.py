"""Images of what the model makes, as it learns."""

from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from lightning.pytorch import Trainer

from langevin.images import enlargement, image_grid
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.trajectory import Trajectory
from langevin.training.callbacks.periodic import Periodic, publish_image
from langevin.training.module import DiffusionModule


class SampleGrid(Periodic):
    """A grid of samples from the same noise every time, so that images compare over time.

    Args:
        generator: makes images.
        run_dir: the run's folder; the PNGs go to `samples`.
        every_n_steps: how often; at least 1.
        num_samples: how many images; at least 1.
        columns: images in a row; at least 1.
        seed: the noise's seed.
    """

    def __init__(
        self,
        generator: SamplePipeline,
        run_dir: Path,
        every_n_steps: Annotated[int, Ge(1)] = 5000,
        num_samples: Annotated[int, Ge(1)] = 64,
        columns: Annotated[int, Ge(1)] = 10,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(every_n_steps)
        self.generator = generator
        self.directory = run_dir / "samples"
        self.num_samples = num_samples
        self.columns = columns
        self.seed = seed

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample on the first rank; the others wait for it at the next step."""
        if not trainer.is_global_zero:
            return
        (batch,) = self.generator(module.ema_model, range(self.num_samples), self.seed, self.num_samples, module.device)
        scale = enlargement(self.generator.shape[-1])
        publish_image(trainer, self.directory, "samples", image_grid(batch.images, self.columns), scale)


class SampleTrajectory(Periodic):
    """How images come out of noise: a row per image, x_t and below it the predicted x, at times along the way.

    Args:
        generator: makes images.
        run_dir: the run's folder; the PNGs go to `samples`.
        every_n_steps: how often; at least 1.
        num_samples: how many images; at least 1.
        num_times: how many columns; at least 2.
        seed: the noise's seed.
    """

    def __init__(
        self,
        generator: SamplePipeline,
        run_dir: Path,
        every_n_steps: Annotated[int, Ge(1)] = 5000,
        num_samples: Annotated[int, Ge(1)] = 4,
        num_times: Annotated[int, Ge(2)] = 10,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(every_n_steps)
        self.generator = generator
        self.directory = run_dir / "samples"
        self.num_samples = num_samples
        self.num_times = num_times
        self.seed = seed

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample on the first rank, recording the trajectory."""
        if not trainer.is_global_zero:
            return
        seen = Trajectory(module.model.schedule, self.num_samples)
        (batch,) = self.generator(
            module.ema_model, range(self.num_samples), self.seed, self.num_samples, module.device, seen
        )
        scale = enlargement(self.generator.shape[-1])
        image = image_grid(seen.rows(batch.images, self.num_times), seen.columns(self.num_times))
        publish_image(trainer, self.directory, "trajectory", image, scale)
