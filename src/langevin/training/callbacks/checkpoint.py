"""Saves the run."""

import os
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from langevin.errors import UserError
from langevin.training.checkpoint import RECORD


class Checkpoint(Callback):
    """Keeps `checkpoints/last.ckpt` current, and copies of it where asked for.

    Lightning's `ModelCheckpoint` is not used: once a run is resumed it writes `last-v1.ckpt` and leaves `last.ckpt`
    behind.

    Args:
        run_dir: the run's folder.
        record: what is stored with the weights so that the model can be rebuilt: plain values.
        every_minutes: save at the first chance after so much time; above 0.
        keep_every_n_steps: keep a copy `step_XXXXXXXX.ckpt` each time so many steps are done; null for none.
        monitor: the value whose lowest (see `mode`) is kept as `best.ckpt`: of the validation, such as "val/loss", or
            of the evaluation, such as "eval/fid@5000"; null for none.
        mode: "min" or "max".

    Raises:
        UserError: when an argument leaves its range.
    """

    # How often the clock is asked; all ranks must hear the answer, so not at every step.
    CLOCK_STEPS = 10

    def __init__(
        self,
        run_dir: Path,
        record: dict[str, Any],
        every_minutes: float = 2.0,
        keep_every_n_steps: int | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if every_minutes <= 0:
            raise UserError(f"every_minutes is {every_minutes}; allowed: above 0")
        if keep_every_n_steps is not None and keep_every_n_steps < 1:
            raise UserError(f"keep_every_n_steps is {keep_every_n_steps}; allowed: at least 1, or null")
        if monitor is not None and not monitor.startswith(("val/", "eval/")):
            raise UserError(f"monitor={monitor}; allowed: a name that begins with val/ or eval/, or null")
        self.directory = run_dir / "checkpoints"
        self.record = record
        self.every_seconds = 60 * every_minutes
        self.keep_every_n_steps = keep_every_n_steps
        self.monitor = monitor
        self.sign = 1 if mode == "min" else -1
        self.best: float | None = None
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is time."""
        step = trainer.global_step
        if step == self._saved_step or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        keep = self.keep_every_n_steps is not None and step % self.keep_every_n_steps == 0
        due = False
        if step % self.CLOCK_STEPS == 0:
            due = trainer.strategy.broadcast(time.monotonic() - self._saved_at > self.every_seconds)
        if keep or due:
            self._save(trainer)
        if keep:
            self._copy(trainer, f"step_{step:08d}.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the best by a value of the validation."""
        if self.monitor is not None and self.monitor.startswith("val/"):
            self._consider(trainer, {name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_evaluation(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Keep the best by a value of the evaluation on samples."""
        if self.monitor is not None and self.monitor.startswith("eval/"):
            self._consider(trainer, values)

    def _consider(self, trainer: Trainer, values: dict[str, float]) -> None:
        if self.monitor not in values:
            known = ", ".join(name for name in sorted(values) if not name.startswith("train/"))
            raise UserError(f"callbacks.checkpoint.monitor={self.monitor}: was not computed; allowed: {known}")
        score = self.sign * values[self.monitor]
        if self.best is None or score < self.best:
            self.best = score
            self._save(trainer)
            self._copy(trainer, "best.ckpt")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score so far."""
        self.best = state_dict["best"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store what the model is rebuilt from."""
        checkpoint[RECORD] = self.record

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.directory / "last.ckpt")
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def _copy(self, trainer: Trainer, name: str) -> None:
        """Keep last.ckpt under another name, at no cost in space where the file system has hard links."""
        if not trainer.is_global_zero:
            return
        temporary = self.directory / f".{name}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.directory / "last.ckpt", temporary)
        except OSError:
            shutil.copyfile(self.directory / "last.ckpt", temporary)
        os.replace(temporary, self.directory / name)
