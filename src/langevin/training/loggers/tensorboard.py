"""TensorBoard."""

import importlib.util
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from langevin.errors import UserError


class TensorBoard(TensorBoardLogger):
    """Logs to `<run>/tensorboard`: `tensorboard --logdir outputs` shows all runs.

    Args:
        run_dir: the run's folder.

    Raises:
        UserError: when the package tensorboard is missing.
    """

    def __init__(self, run_dir: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError("loggers=tensorboard needs the package tensorboard: pip install 'langevin[tensorboard]'")
        super().__init__(save_dir=run_dir, name="tensorboard", version="")
