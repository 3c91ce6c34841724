"""Shows and logs how fast a run goes and when it will be done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from langevin.bars import progress_bar
from langevin.training.callbacks.steps import StepCallback


class Progress(StepCallback, ProgressBar):
    """One bar over the whole run: steps, loss, images a second, time left. Logs `train/images_per_second`.

    In a file, such as a SLURM log, it is a line now and then.

    Lightning's `TQDMProgressBar` is not used: it counts the micro-batches of an epoch, of which a run has one without
    end, and it redraws its line also in a file.

    Args:
        batch_size: images per optimizer step, over all ranks.
        every_n_steps: how often the numbers are renewed (each time waits for the device); at least 1.
    """

    def __init__(self, batch_size: int, every_n_steps: Annotated[int, Ge(1)] = 10) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.every_n_steps = every_n_steps
        self._enabled = True
        self._bar: tqdm | None = None
        self._mark = (0, 0.0)  # the step at which the numbers were renewed, and when, pauses added
        self._validation_began = 0.0

    def disable(self) -> None:
        """Show nothing (Lightning asks for it on every rank but the first)."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the run stands."""
        self._mark = (trainer.global_step, time.monotonic())
        if self._enabled:
            self._bar = progress_bar(
                total=trainer.max_steps if trainer.max_steps > 0 else None,
                initial=trainer.global_step,
                desc="train",
                unit="step",
            )

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the bar and renew the numbers."""
        step, (marked_step, marked_at) = trainer.global_step, self._mark
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
        if step - marked_step < self.every_n_steps:
            return
        loss = float(trainer.callback_metrics["train/loss"])  # waits for the device, so the time below is true
        now = time.monotonic()
        rate = (step - marked_step) * self.batch_size / (now - marked_at)
        self._mark = (step, now)
        pl_module.log("train/images_per_second", rate)
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:,.0f} images/s", refresh=False)

    @contextmanager
    def interlude(self) -> Iterator[None]:
        """Exclude the time spent inside (sampling, evaluation) from the training speed."""
        began = time.monotonic()
        yield
        self._exclude(began)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude validation from the training speed."""
        self._validation_began = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue measuring the training speed."""
        self._exclude(self._validation_began)

    def _exclude(self, began: float) -> None:
        self._mark = (self._mark[0], self._mark[1] + time.monotonic() - began)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
