"""Callbacks that run every so many steps, on the EMA weights, without disturbing training."""

from abc import abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from langevin.images import Figure
from langevin.training.callbacks.progress import Progress
from langevin.training.callbacks.steps import StepCallback
from langevin.training.loggers.mlflow import MLflow
from langevin.training.module import DiffusionModule
from langevin.training.shares import summon_full_params


class Periodic(StepCallback):
    """Runs `act` every so many optimizer steps and at the end of training.

    The random numbers of training are a function of the step alone (`DiffusionModule`), so nothing done here changes
    what is trained.

    Args:
        every_n_steps: at least 1.
    """

    evaluates: ClassVar[bool] = False
    """Whether it computes values of samples, named `eval/NAME`."""

    def __init__(self, every_n_steps: int) -> None:
        self.every_n_steps = every_n_steps
        self._last_step = -1

    @abstractmethod
    def act(self, trainer: Trainer, module: DiffusionModule) -> None:
        """What is to be done; called on every rank, without gradients."""

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act where it is time."""
        if trainer.global_step % self.every_n_steps == 0:
            self._act(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Act on the end, where that has not just been done."""
        if self._last_step != trainer.global_step:
            self._act(trainer, pl_module)

    @torch.no_grad()
    def _act(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, DiffusionModule)
        self._last_step = trainer.global_step
        with ExitStack() as stack:
            if isinstance(bar := trainer.progress_bar_callback, Progress):
                stack.enter_context(bar.interlude())
            stack.enter_context(summon_full_params(pl_module.ema.network))
            stack.enter_context(trainer.precision_plugin.forward_context())
            self.act(trainer, pl_module)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The trainer's callbacks, which Lightning does not declare."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def publish_image(trainer: Trainer, directory: Path, name: str, figure: Figure) -> None:
    """Write a figure as `directory/name_STEP.png`, and give it to the loggers that take images."""
    step, image = trainer.global_step, figure.enlarged()
    path = directory / f"{name}_{step:08d}.png"
    figure.write(path)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key=name, images=[image], step=step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, image, step, dataformats="HWC")
        elif isinstance(logger, MLflow):
            logger.log_figure(path)
