"""FID, Inception Score and their kin in the course of training."""

from typing import Annotated

from annotated_types import Ge
from lightning.pytorch import Trainer
from tqdm import tqdm

from langevin.metrics.evaluation import Evaluation
from langevin.samplers.generate import Generator, share
from langevin.training.callbacks.checkpoint import Checkpoint
from langevin.training.callbacks.periodic import Periodic, callbacks_of
from langevin.training.module import DiffusionModule


class Evaluate(Periodic):
    """Computes the metrics on fresh samples of the averaged weights, every rank making its share.

    Sample i of a seed is the same for any number of ranks, so the values are too. They are logged as `eval/NAME`.

    Args:
        evaluation: the metrics, prepared with the reference images.
        generator: makes pictures.
        every_n_steps: how often; at least 1.
        num_samples: how many samples; at least 1.
        batch_size: pictures sampled at once on each rank; at least 1.
        seed: the noise's seed.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        generator: Generator,
        every_n_steps: Annotated[int, Ge(1)] = 10_000,
        num_samples: Annotated[int, Ge(1)] = 5000,
        batch_size: Annotated[int, Ge(1)] = 250,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(every_n_steps)
        self.evaluation = evaluation
        self.generator = generator
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed
        self._has_reference = False

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample, evaluate, log."""
        self.evaluation.to(module.device)
        if not self._has_reference:
            self.evaluation.add_reference(self.batch_size)
            self._has_reference = True
        self.evaluation.reset()
        mine = share(self.num_samples, self.batch_size, trainer.global_rank, trainer.world_size)
        batches = self.generator(module.averaged, mine, self.seed, self.batch_size, module.device)
        with tqdm(total=len(mine), desc="evaluate", unit="image", leave=False, disable=trainer.global_rank > 0) as bar:
            for batch in batches:
                self.evaluation.add(batch.images, batch.labels, batch.indices)
                bar.update(len(batch.indices))
        values = {f"eval/{name}": value for name, value in self.evaluation.compute().items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
            logger.save()  # the step may be saved, and the run killed, before the next row of the log
        if trainer.is_global_zero:
            shown = ", ".join(f"{name.removeprefix('eval/')} {value:.4g}" for name, value in values.items())
            tqdm.write(f"step {trainer.global_step}: {shown}")
        for callback in callbacks_of(trainer):
            if isinstance(callback, Checkpoint):
                callback.on_evaluation(trainer, values)
