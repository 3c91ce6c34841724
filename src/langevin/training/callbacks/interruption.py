"""Stops a run at a scheduler's signal, so that it can be resumed later."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from langevin import interrupt
from langevin.training.callbacks.checkpoint import Checkpoint
from langevin.training.callbacks.steps import StepCallback


class Interruption(StepCallback):
    """Stops once any rank has received a signal (`langevin.interrupt`).

    Between two steps it saves. During a validation it does not, so that the resumed run repeats that validation.
    All ranks stop at the same place: otherwise they would deadlock.

    Args:
        checkpoint: what saves the run; None where nothing does.
    """

    # How often the ranks ask each other, in steps or batches of validation.
    EVERY = 10

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install our signal handlers again: Lightning has replaced them by its own."""
        interrupt.listen()

    def before_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the step, when everything of the previous step is done.

        Raises:
            Interrupted: on all ranks, after saving.
        """
        if self._is_due(trainer, trainer.global_step) and interrupt.agreed():
            if self.checkpoint is not None:
                self.checkpoint.save_end(trainer)
            interrupt.require_undisturbed(f"at step {trainer.global_step}")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop after the batch; nothing of the validation is kept, nor is its step saved.

        Raises:
            Interrupted: on all ranks.
        """
        if self._is_due(trainer, batch_idx):
            interrupt.require_undisturbed(f"while step {trainer.global_step} was validated")

    def _is_due(self, trainer: Trainer, count: int) -> bool:
        return trainer.world_size == 1 or count % self.EVERY == 0
