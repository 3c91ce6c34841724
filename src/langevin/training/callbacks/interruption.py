"""Ends a run that it may go on later, when a scheduler asks for it."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer

from langevin import interrupt
from langevin.interrupt import Interrupted
from langevin.training.callbacks.checkpoint import Checkpoint
from langevin.training.callbacks.periodic import callbacks_of

Item = TypeVar("Item")


class Interruption(Callback):
    """Saves and stops between two steps once any rank has received a signal (`langevin.interrupt`).

    All ranks stop at the same step: in the midst of one they would wait for each other for ever.
    """

    # How often the ranks ask each other.
    EVERY_STEPS = 10

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen again: Lightning has put its own handlers in the place of ours."""
        interrupt.listen()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop before the step, where all that belongs to the one before is done.

        Raises:
            Interrupted: on all ranks, after saving.
        """
        if batch_idx % trainer.accumulate_grad_batches:
            return
        if (trainer.world_size == 1 or trainer.global_step % self.EVERY_STEPS == 0) and agreed(trainer):
            for callback in callbacks_of(trainer):
                if isinstance(callback, Checkpoint):
                    callback.save_end(trainer)
            raise Interrupted(f"by {interrupt.received() or 'a signal'} at step {trainer.global_step}")


def agreed(trainer: Trainer) -> bool:
    """Whether any rank has received a signal; every rank must ask."""
    if trainer.world_size == 1:  # ask nobody, which would wait for the device
        return interrupt.received() is not None
    return trainer.strategy.reduce_boolean_decision(interrupt.received() is not None, all=False)


def heeded(trainer: Trainer, items: Iterable[Item], rounds: int) -> Iterator[Item]:
    """Give this rank's items, all ranks stopping after the same round once any of them has received a signal.

    Args:
        trainer: the trainer.
        items: at most `rounds`.
        rounds: the same on all ranks.

    Raises:
        Interrupted: then, on all ranks.
    """
    left = iter(items)
    for _ in range(rounds):
        yield from itertools.islice(left, 1)
        if agreed(trainer):
            raise Interrupted(f"by {interrupt.received() or 'a signal'} while step {trainer.global_step} was evaluated")
