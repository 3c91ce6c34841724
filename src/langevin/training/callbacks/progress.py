"""Shows and logs how fast a run goes and when it will be done."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm


class Progress(ProgressBar):
    """One bar over the whole run: steps, loss, images a second, time left. Logs `train/images_per_second`.

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
        self._mark = (0, 0.0)

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
            terminal = sys.stderr.isatty()
            self._bar = tqdm(
                total=trainer.max_steps if trainer.max_steps > 0 else None,
                initial=trainer.global_step,
                desc="train",
                unit="step",
                dynamic_ncols=terminal,
                mininterval=0.2 if terminal else 10,  # a log file wants a line now and then
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
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
        self._mark = (self._mark[0], self._mark[1] + time.monotonic() - began)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Exclude validation from the training speed."""
        self._validation = self.interlude()
        self._validation.__enter__()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue measuring the training speed."""
        self._validation.__exit__(None, None, None)

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
