"""Saves the run."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt
from lightning.pytorch import LightningModule, Trainer, callbacks

from langevin.checkpoint import LAST, RECORD, last_checkpoints
from langevin.errors import UserError
from langevin.files import write_atomically
from langevin.training.callbacks.monitored import Monitored
from langevin.training.callbacks.steps import StepCallback
from langevin.training.shares import full_tensor

CONFIG = "config.yaml"
"""What train.py writes into a run's folder before it trains, and what makes it the folder of a run."""
NEW = ".last.ckpt.new"
"""The newest checkpoint, before it is renamed to last.ckpt."""


class Checkpoint(StepCallback, Monitored, callbacks.Checkpoint):
    """Keeps `checkpoints/last.ckpt` current, and copies of it where configured.

    As one of Lightning's checkpoint callbacks it is called after all others, so that what is saved is done.

    Lightning's `ModelCheckpoint` is not used. It saves a step before the step's validation, which a run killed in
    between never makes. Where it saves by steps or time, it takes the value of an earlier validation for that of the
    present weights. It keeps one last checkpoint.

    Args:
        run_dir: the run's folder.
        record: what is stored with the weights so that the model can be rebuilt: plain values.
        every_minutes: save at the first chance after so much time; above 0. None, where `every_n_steps` is None too,
            for a minute, or longer where saving would otherwise take more than a hundredth of the run's time.
        every_n_steps: save after each multiple of so many steps; at least 1. None for by time alone.
        keep_last: how many of the last checkpoints are kept: last.ckpt, and before it last-1.ckpt, ...: where a disk
            damages the newest, the run resumes from the one before; at least 1.
        keep_every_n_steps: keep a copy `step_XXXXXXXX.ckpt` each time so many steps are done; null for none.
        monitor: the value whose lowest (see `mode`) is kept as `best.ckpt`: see `Monitored`; null for
            none.
        mode: "min" or "max".

    Raises:
        UserError: when `monitor` is the name of no such value.
    """

    # The fraction of a run's time that saving may take where no interval is given.
    SHARE = 0.01

    # How often the clock is checked where the first rank must broadcast the result.
    CLOCK_STEPS = 10

    def __init__(
        self,
        run_dir: Path,
        record: dict[str, Any],
        every_minutes: Annotated[float, Gt(0)] | None = None,
        every_n_steps: Annotated[int, Ge(1)] | None = None,
        keep_last: Annotated[int, Ge(1)] = 2,
        keep_every_n_steps: Annotated[int, Ge(1)] | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        super().__init__("checkpoint", monitor, mode)
        self.directory = run_dir / "checkpoints"
        self.record = record
        self.every_n_steps = every_n_steps
        self._limits_share = every_minutes is None and every_n_steps is None
        # Seconds between two saves; None if steps alone decide.
        self._pause = 60.0 if self._limits_share else None if every_minutes is None else 60 * every_minutes
        self.keep_last = keep_last
        self.keep_every_n_steps = keep_every_n_steps
        self.best: float | None = None
        self._best_is_now = False
        self._kept_step = -1
        self._saved_step = -1
        self._has_config = False
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock.

        Raises:
            UserError: when nothing in this run computes `monitor`.
        """
        super().on_train_start(trainer, pl_module)
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        self._has_config = (self.directory.parent / CONFIG).is_file()

    def before_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the previous step, where it is time."""
        if trainer.global_step > 0:
            self._save_where(trainer, self._is_due(trainer))

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if self.every_n_steps is not None and step % self.every_n_steps == 0:
            return True
        if self._pause is None or (trainer.world_size > 1 and step % self.CLOCK_STEPS):
            return False
        return trainer.strategy.broadcast(time.monotonic() - self._saved_at > self._pause)

    def consider(self, trainer: Trainer, value: float) -> None:
        """Keep the best."""
        score = self.sign * value
        if not math.isnan(score) and (self.best is None or score < self.best):
            self.best, self._best_is_now = score, True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step."""
        self.save_end(trainer)

    def save_end(self, trainer: Trainer) -> None:
        """Save the current step, if it is not yet saved; every rank must call it."""
        self._save_where(trainer, due=True)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, and the last step of which a copy is kept."""
        return {"best": self.best, "kept": self._kept_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score and the last step of which a copy is kept."""
        self.best, self._kept_step = state_dict["best"], state_dict.get("kept", -1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store what the model is rebuilt from."""
        checkpoint[RECORD] = self.record

    def _save_where(self, trainer: Trainer, due: bool) -> None:
        step, every = trainer.global_step, self.keep_every_n_steps
        names = []
        if every is not None and step % every == 0 and step != self._kept_step:
            names.append(f"step_{step:08d}.ckpt")
            self._kept_step = step
        if self._best_is_now:
            names.append("best.ckpt")
            self._best_is_now = False
        if names or (due and step != self._saved_step):
            self._save(trainer, [*names, LAST])

    def _save(self, trainer: Trainer, names: list[str]) -> None:
        """Save under some names: last.ckpt after the others, so that a run killed in between makes them again.

        Raises:
            UserError: when the weights are not finite, and would replace good ones; or when the run's folder is gone.
        """
        began = time.monotonic()
        norms = torch.stack([full_tensor(weight.detach().norm()) for weight in trainer.lightning_module.parameters()])
        if not norms.isfinite().all():
            raise UserError(
                f"at step {trainer.global_step} the weights are not finite any more; nothing of it was saved. Lower "
                "optimizer.lr, or add divergence to callbacks"
            )
        if trainer.is_global_zero and self._has_config and not (self.directory.parent / CONFIG).is_file():
            raise UserError(
                f"{self.directory.parent} was removed or moved while it was being trained; nothing more was saved. "
                "Put it back and rerun the same command to resume from its last checkpoint, or start a new run"
            )
        *copies, _ = names
        # A new checkpoint has a name of its own until it is complete: only then is the older one replaced.
        whole = self.directory / (copies[0] if copies else NEW)
        trainer.save_checkpoint(whole)
        if trainer.is_global_zero:
            for name in copies[1:]:
                share(whole, self.directory / name)
            if copies:
                share(whole, self.directory / NEW)
            self._make_last()
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()
        if self._limits_share:
            self._pause = max(60.0, (self._saved_at - began) / self.SHARE)

    def _make_last(self) -> None:
        """Rename the new checkpoint to last.ckpt, and the previous one to last-1.ckpt, ...: each name has its own file.

        If this is interrupted, all intact checkpoints still exist, last.ckpt among them; where the file system has no
        hard links, last.ckpt is missing for a moment, but last-1.ckpt exists.
        """
        ends = last_checkpoints(self.directory)
        kept = [(old, self.directory / f"last-{number}.ckpt") for number, old in enumerate(ends, start=1)]
        kept = kept[: self.keep_last - 1]
        moves = []
        for old, target in reversed(kept):
            if old != target:
                if (second := second_name(old, target)) is None:
                    os.replace(old, target)
                else:
                    moves.append((second, target))
        os.replace(self.directory / NEW, self.directory / LAST)
        for second, target in reversed(moves):
            os.replace(second, target)
            second.unlink(missing_ok=True)  # renaming one name of a file to another of it does nothing at all
        for old in set(ends) - {self.directory / LAST, *(target for _, target in kept)}:
            old.unlink(missing_ok=True)


def second_name(path: Path, target: Path) -> Path | None:
    """Give a file a second, hidden name beside `target`; None where the file system has no hard links."""
    hidden = target.with_name(f".{target.name}")
    hidden.unlink(missing_ok=True)
    try:
        os.link(path, hidden)
    except OSError:
        return None
    return hidden


def share(source: Path, target: Path) -> None:
    """Give a file a second name, without copying it where the file system has hard links.

    Existing files are never written into: a later save replaces the file of one name only.
    """
    if target.exists() and target.samefile(source):  # renaming one name of a file to another of it does nothing at all
        return
    if (second := second_name(source, target)) is not None:
        os.replace(second, target)
        return
    with source.open("rb") as content:
        write_atomically(target, lambda file: shutil.copyfileobj(content, file))
