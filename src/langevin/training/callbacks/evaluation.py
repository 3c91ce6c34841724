"""FID, Inception Score and other sample metrics during training."""

import json
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from tqdm import tqdm

from langevin.batches import Batches
from langevin.config.identity import digest
from langevin.evaluation.evaluation import Evaluation
from langevin.evaluation.model import measure_model
from langevin.files import write_json
from langevin.samplers.pipeline import Pipeline
from langevin.training.callbacks.monitored import Monitored
from langevin.training.callbacks.periodic import Periodic, callbacks_of, publish_image
from langevin.training.loggers.csv import CSVFile
from langevin.training.loggers.mlflow import MLflow
from langevin.training.module import DiffusionModule


class Evaluate(Periodic):
    """Computes the metrics on fresh samples of the EMA weights, or reconstructions; every rank makes its part.

    Sample i of a seed is the same for any number of ranks, so the values are too. They are logged as `eval/NAME`.

    A run killed meanwhile reuses the samples made so far when it reaches the same step again. The protocol of the
    values is written to `evaluations/protocol-NAME.json`, and NAME is logged with them.

    Args:
        evaluation: the metrics, prepared with the reference images.
        generator: makes images.
        run_dir: the run's folder.
        every_n_steps: how often; at least 1.
        num_samples: how many samples; at least 1.
        batch_size: images sampled at once on each rank; at least 1.
        seed: the noise's seed.
    """

    evaluates = True

    def __init__(
        self,
        evaluation: Evaluation,
        generator: Pipeline,
        run_dir: Path,
        every_n_steps: Annotated[int, Ge(1)] = 10_000,
        num_samples: Annotated[int, Ge(1)] = 5000,
        batch_size: Annotated[int, Ge(1)] = 250,
        seed: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__(every_n_steps)
        self.evaluation = evaluation
        self.generator = generator
        self.directory = run_dir / "evaluations"
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed = seed

    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """Sample, evaluate, log."""
        where = f"while step {trainer.global_step} was evaluated"
        rank, world = trainer.global_rank, trainer.world_size
        batches = Batches(self.num_samples, self.batch_size, rank, world, "evaluate", where)
        evaluation, model, precision = self.evaluation.to(module.device), module.ema_model, str(trainer.precision)
        result, _, store = measure_model(
            evaluation, self.generator, model, batches, self.seed, self.directory, "training", precision
        )
        values = {f"eval/{name}": value for name, value in result.values.items()}
        self._publish(trainer, values, result.protocol)
        if trainer.is_global_zero:  # every rank has computed, and so needs no image any more
            store.remove()
            store.remove_others()
            for metric, figure in result.figures.items():
                publish_image(trainer, self.directory, metric, figure)
            for metric, details in result.details.items():
                write_json(self.directory / f"{metric}_{trainer.global_step:08d}.json", details)
        for callback in callbacks_of(trainer):
            if isinstance(callback, Monitored):
                callback.on_evaluation(trainer, values)

    def _publish(self, trainer: Trainer, values: dict[str, float], protocol: dict[str, Any]) -> None:
        name = digest(protocol)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
            if isinstance(logger, CSVFile | WandbLogger):
                logger.log_metrics({"eval/protocol": name}, step=trainer.global_step)  # type: ignore[dict-item]
                logger.log_hyperparams({f"protocols/{name}": protocol})
            elif isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("eval/protocol", f"{name}: {json.dumps(protocol)}", trainer.global_step)
            elif isinstance(logger, MLflow):
                logger.log_protocol(name, protocol)
            logger.save()  # the step may be saved, and the run killed, before the next row of the log
        if trainer.is_global_zero:
            write_json(self.directory / f"protocol-{name}.json", protocol)
            shown = ", ".join(f"{key.removeprefix('eval/')} {value:.4g}" for key, value in values.items())
            tqdm.write(f"step {trainer.global_step}: {shown}")
