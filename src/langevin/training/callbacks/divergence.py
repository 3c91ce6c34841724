"""Handles a run whose loss or gradient is not finite, or explodes."""

import math
import warnings
from collections import deque
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, cast

import torch
from annotated_types import Ge, Gt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from langevin.checkpoint import newest_of, read_checkpoint
from langevin.errors import UserError
from langevin.files import write_atomically, write_json
from langevin.training.callbacks.steps import StepCallback
from langevin.training.module import DiffusionModule, step_seed


class Divergence(StepCallback):
    """Checks the loss and the gradient norm of every optimizer step before it is made; a bad step is not made.

    A step is bad when its loss or the norm is not finite, or the norm is above `factor` times the median of those of
    the last `window` good steps. All processes check the same numbers, the means over all of them. Under `16-mixed` a
    non-finite norm with a finite loss is left to the gradient scaler.

    What is done with a bad step, which still counts as one of `trainer.max_steps`:

    - stop: the run ends with a message and status 1. Nothing is saved, so that the last checkpoint is that of a good
      step. The same command meets the same batch again: resume with another `action`.
    - skip: weights and the optimizer's moments stay as they are; the EMA and the learning rate schedule still advance.
      A run that is killed and rerun skips the same steps.
    - roll_back: weights, EMA weights, optimizer, learning rate schedule and time sampler become those of the last
      checkpoint, and the run continues with the batches that follow (where nothing is saved yet, as with skip). Where
      the clock decides when a checkpoint is saved, such a run is not bit-exactly repeatable; an uninterrupted one with
      `callbacks.checkpoint.every_n_steps` is.

    The first `RECORDS` bad batches of a run are kept in `<run>/diverged`, a file a process: ``torch.load`` of
    `step_XXXXXXXX-RANK.pt` gives "step", "loss", "grad_norm" and "parts", a list of this process's micro-batches with
    "images" (B, C, H, W) in [-1, 1] or the "moments" of their latents, "labels" (B,), what `DiffusionModule.drawn` has,
    and the "seed" that ``torch.manual_seed`` was given before dropout was drawn. The weights are those that training
    from the last checkpoint reaches by that step. `step_XXXXXXXX.json` records what was found and done.

    The check costs a device synchronization at every step, and with several processes an all-reduce of two numbers.

    Args:
        run_dir: the run's folder.
        action: "stop", "skip" or "roll_back".
        factor: above how many times its median the norm is too large; above 1; null for never.
        window: how many good steps the median is of; there must have been so many before any is too large; at least 1.
        patience: how many steps in a row are skipped, or how many times one checkpoint is rolled back to; the next bad
            step stops the run. At least 1.
    """

    RECORDS = 20

    def __init__(
        self,
        run_dir: Path,
        action: Literal["stop", "skip", "roll_back"] = "stop",
        factor: Annotated[float, Gt(1)] | None = None,
        window: Annotated[int, Ge(1)] = 100,
        patience: Annotated[int, Ge(1)] = 10,
    ) -> None:
        self.run_dir = run_dir
        self.directory = run_dir / "diverged"
        self.action = action
        self.factor = factor
        self.patience = patience
        self._norms: deque[float] = deque(maxlen=window)
        self._count = 0  # of skips in a row, or of roll-backs to the checkpoint of step _origin
        self._origin = 0
        self._parts: list[dict[str, Any]] = []
        self._loss: Tensor | float = 0.0
        self._back_to: Path | None = None

    def state_dict(self) -> dict[str, Any]:
        """The norms, and the bad steps so far."""
        return {"norms": list(self._norms), "count": self._count, "origin": self._origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the norms and the counts."""
        self._norms.extend(state_dict["norms"])
        self._count, self._origin = state_dict["count"], state_dict["origin"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there will be checkpoints to roll back to, and listen to the gradient.

        Raises:
            UserError: when there will be none.
        """
        if self.action == "roll_back" and trainer.checkpoint_callback is None:
            raise UserError(
                "callbacks.divergence.action=roll_back: nothing is saved in this run; add checkpoint to callbacks"
            )
        # Lightning has no hook between the clipping, where the norm is known, and the step.
        cast("DiffusionModule", pl_module).gradient_listeners.append(partial(self.on_gradient, trainer, pl_module))

    def before_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the previous step's micro-batches."""
        self._parts, self._loss = [], 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Record a micro-batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        assert isinstance(pl_module, DiffusionModule)
        seed = step_seed(pl_module.seed, trainer.global_rank, batch_idx)
        samples = {"images": batch["x"]} if "x" in batch else {"moments": batch["moments"]}  # of latents
        self._parts.append({"seed": seed, **samples, "labels": batch["label"]})

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Record what was drawn for it, and add its part of the loss."""
        self._parts[-1] |= cast("DiffusionModule", pl_module).drawn
        self._loss = self._loss + loss.detach()

    def on_gradient(self, trainer: Trainer, pl_module: LightningModule, norm: Tensor) -> None:
        """Check the step that is about to be made.

        Raises:
            UserError: on all ranks, when the run is to stop.
        """
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        numbers = torch.stack([torch.as_tensor(self._loss).float() / scale, norm.float()])
        loss, size = trainer.strategy.reduce(numbers, reduce_op="mean").tolist()
        if scaler is not None and math.isfinite(loss) and not math.isfinite(size):
            return
        fault = self._fault(loss, size)
        if fault is None:
            self._norms.append(size)
            if self.action == "skip":
                self._count = 0
            return
        self._back_to = newest_of(self.run_dir) if self.action == "roll_back" else None
        origin = 0 if self._back_to is None else read_checkpoint(self._back_to)["global_step"]
        if origin != self._origin:
            self._origin, self._count = origin, 0
        stops = self.action == "stop" or self._count == self.patience
        self._record(trainer, fault, loss, size, "stop" if stops else self.action)
        step = trainer.global_step + 1
        if stops:
            often = "" if self.action == "stop" else f", after action={self.action} {self.patience} times (patience)"
            raise UserError(
                f"training diverged at step {step}: {fault}{often}. The last checkpoint is of a good step; the batch "
                f"is in {self.directory}. To continue past it, rerun the command with callbacks.divergence.action="
                "skip or roll_back, or with more patience; or train with a lower optimizer.lr under another name"
            )
        self._count += 1
        pl_module.zero_grad(set_to_none=True)  # without a gradient an optimizer leaves a weight and its moments alone
        if trainer.is_global_zero:
            done = f"back to step {origin}" if self._back_to is not None else "skipped"
            tqdm.write(f"step {step}: {fault}: {done}; the batch is in {self.directory}")

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Roll back after a bad step, when all that counts steps has counted it."""
        if self._back_to is None:
            return
        assert isinstance(pl_module, DiffusionModule)
        checkpoint, self._back_to = read_checkpoint(self._back_to), None
        trainer.strategy.load_model_state_dict(checkpoint, strict=True)
        trainer.strategy.load_optimizer_state_dict(checkpoint)
        for config, state in zip(trainer.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        pl_module.load_history(checkpoint)

    def _fault(self, loss: float, norm: float) -> str | None:
        """What is wrong with a step, in words."""
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm}"
        if self.factor is not None and len(self._norms) == self._norms.maxlen:
            usual = median(self._norms)
            if norm > self.factor * usual:
                return f"the gradient's norm is {norm:.4g}, above factor={self.factor:g} times the usual {usual:.4g}"
        return None

    def _record(self, trainer: Trainer, fault: str, loss: float, norm: float, action: str) -> None:
        """Save the batch of a bad step; a full disk does not stop the run."""
        step, rank = trainer.global_step + 1, trainer.global_rank
        found = {"step": step, "loss": loss, "grad_norm": norm}
        try:
            if trainer.is_global_zero:
                write_json(self.directory / f"step_{step:08d}.json", {**found, "fault": fault, "action": action})
            if len(list(self.directory.glob(f"step_*-{rank}.pt"))) < self.RECORDS:
                parts = [
                    {name: value.cpu() if isinstance(value, Tensor) else value for name, value in part.items()}
                    for part in self._parts
                ]
                path = self.directory / f"step_{step:08d}-{rank}.pt"
                write_atomically(path, lambda file: torch.save({**found, "parts": parts}, file))
        except (OSError, RuntimeError) as error:  # torch reports a failed write as either
            warnings.warn(f"the bad batch of step {step} could not be kept: {error}", stacklevel=2)
