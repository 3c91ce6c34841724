"""Stops a run that no longer improves."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from tqdm import tqdm

from langevin.early_stop import FILE, write_stop
from langevin.training.callbacks.monitored import Monitored


class EarlyStopping(Monitored):
    """Ends training when a value has not improved for a while; the run is then done.

    Rerun with the same settings it stays done; with more patience, or without this callback, it is resumed. The counts
    are kept in the checkpoint: a run that is killed and resumed stops at the same step.

    Lightning's `EarlyStopping` is not used: it never sees the values of an evaluation on samples, a resumed run has the
    patience that it was begun with whatever the config says, and nothing tells a run that has stopped from one that was
    killed.

    Args:
        run_dir: the run's folder.
        monitor: the value, see `Monitored`.
        mode: whether lower ("min") or higher ("max") is better.
        patience: the run ends when so many values in a row, one a validation (or evaluation), are no better than the
            best before them, as NaN never is; at least 1.
        min_delta: by how much a value must be better to count as better; at least 0.

    Raises:
        UserError: when `monitor` is the name of no such value.
    """

    def __init__(
        self,
        run_dir: Path,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        patience: Annotated[int, Ge(1)] = 5,
        min_delta: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__("early_stopping", monitor, mode)
        self.run_dir = run_dir
        self.settings = {"monitor": monitor, "mode": mode, "patience": patience, "min_delta": min_delta}
        self.patience = patience
        self.min_delta = min_delta
        self._best: float | None = None
        self._waited = 0
        self._ends = False

    def state_dict(self) -> dict[str, Any]:
        """The best value so far, and how many have come since."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore both."""
        self._best, self._waited = state_dict["best"], state_dict["waited"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the value will be computed, and forget that the run has stopped before."""
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            (self.run_dir / FILE).unlink(missing_ok=True)

    def consider(self, trainer: Trainer, value: float) -> None:
        """Count, and end the run where it is time; every process does so at the same step."""
        score = self.sign * value
        if not math.isnan(score) and (self._best is None or score < self._best - self.min_delta):
            self._best, self._waited = score, 0
        else:
            self._waited += 1
        if self._waited >= self.patience and not self._ends:
            self._ends = trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the run has stopped, where it has not come to its end."""
        if not self._ends or trainer.global_step >= trainer.max_steps or not trainer.is_global_zero:
            return
        best = "no value was finite" if self._best is None else f"the best was {self.sign * self._best:.6g}"
        why = f"{self.settings['monitor']} has not improved in {self._waited} values in a row; {best}"
        write_stop(self.run_dir, trainer.global_step, why, self.settings)
        tqdm.write(f"step {trainer.global_step}: stopped early: {why}")
