"""TensorBoard."""

import importlib.util
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from langevin.config.identity import flatten
from langevin.errors import missing_package


class TensorBoard(TensorBoardLogger):
    """Logs to `<run>/tensorboard`: `tensorboard --logdir outputs` shows all runs.

    Args:
        run_dir: the run's folder.

    Raises:
        UserError: when the package tensorboard is missing.
    """

    def __init__(self, run_dir: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise missing_package("loggers=tensorboard", "tensorboard", "tensorboard")
        self._options: dict[str, Any] = {
            "save_dir": run_dir,
            "name": "tensorboard",
            "version": "",
            "default_hp_metric": False,
        }
        super().__init__(**self._options)

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Have what an earlier process logged after `step`, the step its checkpoint stands at, no longer shown.

        To be called before anything is logged: torch's writer takes the step when it is made, from the constructor.
        """
        super().__init__(**self._options, purge_step=step + 1)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the options for the page HPARAMS; its metrics are then all that the runs have logged.

        Lightning's own would announce a single metric, `hp_metric`, and TensorBoard would show no other.
        """
        from torch.utils.tensorboard.summary import hparams

        super().log_hyperparams(dict(flatten(params)))
        numbers = {name: value for name, value in self.hparams.items() if type(value) in (int, float)}
        _, session, _ = hparams({name: str(value) for name, value in self.hparams.items()} | numbers, {})
        self.experiment.file_writer.add_summary(session)
