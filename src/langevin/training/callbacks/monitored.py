"""Callbacks that follow one value of the validation, or of the evaluation on samples."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from langevin.errors import OptionError, UserError
from langevin.logged import matching
from langevin.training.callbacks.periodic import Periodic, callbacks_of


class Monitored(Callback):
    """Is called with each new value of one name, the same on every process.

    Args:
        option: the callback's name in the config, for messages.
        monitor: the value: of the validation, such as "val/loss", or of the evaluation, such as "eval/fid@5000", or a
            pattern of it, such as "eval/fd_*@500"; None for none.
        mode: "min" or "max", which of two values is the better one.

    Raises:
        UserError: when `monitor` is the name of no such value.
    """

    def __init__(self, option: str, monitor: str | None, mode: Literal["min", "max"]) -> None:
        if monitor is not None and not monitor.startswith(("val/", "eval/")):
            raise OptionError("monitor", f"is {monitor}; allowed: a name that begins with val/ or eval/, or null")
        self.monitor = monitor
        self.sign = 1 if mode == "min" else -1
        self._option = f"callbacks.{option}.monitor"

    @abstractmethod
    def consider(self, trainer: Trainer, value: float) -> None:
        """Called with each new value, which may be NaN, after its step."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the value will be computed.

        Raises:
            UserError: when nothing in this run computes it.
        """
        source, remedy = (self.monitor or "").partition("/")[0], None
        if source == "val" and not sum(trainer.num_val_batches):
            remedy = "there is no validation; set trainer.val_check_interval, with data that has a test split"
        elif source == "eval" and not any(
            isinstance(callback, Periodic) and callback.evaluates for callback in callbacks_of(trainer)
        ):
            remedy = "there is no evaluation; choose metrics=[...]"
        if remedy is not None:
            raise UserError(f"{self._option}={self.monitor}: is never computed, since {remedy}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a value of the validation."""
        if self.monitor is not None and self.monitor.startswith("val/"):
            self._take(trainer, {name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_evaluation(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        """Take a value of the evaluation on samples."""
        if self.monitor is not None and self.monitor.startswith("eval/"):
            self._take(trainer, values)

    def _take(self, trainer: Trainer, values: Mapping[str, float]) -> None:
        assert self.monitor is not None
        found = matching(self.monitor, sorted(values))
        if len(found) != 1:
            what = f"fits {', '.join(found)}" if found else "was not computed"
            known = ", ".join(name for name in sorted(values) if not name.startswith("train/"))
            raise UserError(f"{self._option}={self.monitor}: {what}; allowed: one of {known}")
        self.consider(trainer, values[found[0]])
