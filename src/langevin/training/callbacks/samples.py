"""Figures of what the model makes, as it learns."""

from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import Trainer

from langevin.content import class_names, labelled
from langevin.samplers.generate import SamplePipeline
from langevin.samplers.pipeline import Pipeline, SampleBatch
from langevin.samplers.prompts import captions_of
from langevin.samplers.requests import Requests
from langevin.samplers.trajectory import Trajectory
from langevin.training.callbacks.periodic import Periodic, publish_image
from langevin.training.module import DiffusionModule


class SampleGrid(Periodic):
    """A grid of samples from the same noise every time, so that they compare over time.

    Of an autoencoder these are reconstructions of the same held-out samples, each beside its original.

    Args:
        generator: makes samples.
        run_dir: the run's folder; the PNGs go to `samples`.
        every_n_steps: how often; at least 1.
        num_samples: how many; at least 1.
        columns: samples in a row; at least 1.
        seed: the noise's seed.
    """

    def __init__(
        self,
        generator: Pipeline,
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
        modality = self.generator.modality
        classes = classes_of(batch, self.generator.requests, self.directory.parent)
        if batch.target is None:
            publish_image(trainer, self.directory, "samples", modality.preview(batch.samples, self.columns, classes))
        else:
            kinds = {"original": batch.target, "rebuilt": batch.samples.cpu()}
            publish_image(trainer, self.directory, "samples", modality.beside(kinds, self.columns, classes))


class SampleTrajectory(Periodic):
    """How samples come out of noise: x_t and the predicted x at times along the way.

    Args:
        sampling: makes samples.
        run_dir: the run's folder; the PNGs go to `samples`.
        every_n_steps: how often; at least 1.
        num_samples: how many; at least 1.
        num_times: how many columns; at least 2.
        seed: the noise's seed.
    """

    def __init__(
        self,
        sampling: SamplePipeline,
        run_dir: Path,
        every_n_steps: Annotated[int, Ge(1)] = 5000,
        num_samples: Annotated[int, Ge(1)] = 4,
        num_times: Annotated[int, Ge(2)] = 10,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(every_n_steps)
        self.sampling = sampling
        self.directory = run_dir / "samples"
        self.num_samples = num_samples
        self.num_times = num_times
        self.seed = seed

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample on the first rank, recording the trajectory."""
        if not trainer.is_global_zero:
            return
        model: Any = module.model
        seen = Trajectory(model.schedule, self.num_samples, self.sampling.show)
        (batch,) = self.sampling(
            module.ema_model, range(self.num_samples), self.seed, self.num_samples, module.device, seen
        )
        classes = classes_of(batch, self.sampling.requests, self.directory.parent)
        figure = self.sampling.modality.strips(
            *seen.chosen(self.num_times), batch.samples.cpu(), seen.labels(self.num_times), classes
        )
        publish_image(trainer, self.directory, "trajectory", figure)


def classes_of(batch: SampleBatch, requests: Requests, run_dir: Path) -> list[str] | None:
    """What the samples of a run are labelled with: their prompts, else their classes; None where they have neither."""
    if (prompts := captions_of(requests, batch.cond)) is not None:
        return prompts
    labels = batch.cond.get("label")
    return labelled(None if labels is None else labels.tolist(), class_names(run_dir))
