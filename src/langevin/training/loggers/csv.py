"""The run's numbers as one CSV file."""

import csv
import io
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from langevin.errors import UserError
from langevin.files import write_atomically
from langevin.logged import LogError, whole_rows
from langevin.visible import visible


class CSVFile(Logger):
    """Writes `metrics.csv`: one row a step, one column a value, empty where nothing was logged.

    Lightning's `CSVLogger` is not used: it deletes the file when a run is resumed. Here a resumed run drops the rows
    after the checkpoint it resumes from and appends.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, str]] = {}
        self._fields: list[str] = ["step"]
        self._on_disk = 0

    @property
    def name(self) -> str:
        """The logger's name."""
        return "csv"

    @property
    def version(self) -> str:
        """There is one file a run."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Path:
        """The file."""
        return self.path

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The config has a file of its own."""

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Take over the rows of an earlier process up to `step`, the step its checkpoint stands at.

        Raises:
            UserError: when the file is damaged: rewriting it would lose what cannot be read. A last line that was
                cut short is dropped with a warning.
        """
        if not self.path.is_file():
            return
        try:
            rows, is_cut = whole_rows(self.path)
        except LogError as error:
            raise UserError(
                f"{self.path} is damaged: {error}; repair it, or move it away to continue without its rows"
            ) from error
        if is_cut:
            warnings.warn(visible(f"the last line of {self.path} was cut short; it is dropped"), stacklevel=2)
        for at, values in rows:
            if at <= step:
                self._add(at, values)
        self._on_disk = 0
        self.save()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | str], step: int | None = None) -> None:
        """Record values at a step; they are written at the next `save`."""
        texts = {name: value if isinstance(value, str) else repr(float(value)) for name, value in metrics.items()}
        self._add(step or 0, {name: text for name, text in texts.items() if name != "epoch"})

    def _add(self, step: int, values: Mapping[str, str]) -> None:
        new = [name for name in values if name not in self._fields]
        if new or next(reversed(self._rows), -1) >= step:
            self._on_disk = 0  # a new column, or an earlier row changed: the file is rewritten
        self._fields += new
        self._rows.setdefault(step, {"step": str(step)}).update(values)

    @rank_zero_only
    def save(self) -> None:
        """Write what is not yet on the disk."""
        rows = [self._rows[step] for step in sorted(self._rows)]
        if self._on_disk == len(rows) > 0:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self._fields, lineterminator="\n")
        if self._on_disk == 0:
            writer.writeheader()
        writer.writerows(rows[self._on_disk :])
        if self._on_disk == 0:
            write_atomically(self.path, lambda file: file.write(text.getvalue().encode()))
        else:
            with self.path.open("a", newline="") as file:
                file.write(text.getvalue())
        self._on_disk = len(rows)

    def finalize(self, status: str) -> None:
        """Write what is left."""
        self.save()
