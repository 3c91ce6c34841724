"""Hooks that count optimizer steps; Lightning's own count micro-batches."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepCallback(Callback):
    """A callback that is called once before and once after each optimizer step, on every rank.

    `trainer.global_step` is the number of steps done.
    """

    def before_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called when all of the previous step is done: its log row, validation and evaluation."""

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called before the step's validation."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Call `before_step` at a step's first micro-batch."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.before_step(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call `after_step` at a step's last micro-batch."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.after_step(trainer, pl_module)
