"""The run's numbers as one CSV file."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from langevin.files import write_atomically


class CSVFile(Logger):
    """Writes `metrics.csv`: one row a step, one column a value, empty where nothing was logged.

    Lightning's `CSVLogger` is not used: it deletes the file when a run is resumed. Here a resumed run drops the rows
    after the checkpoint it goes on from and appends.

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
        """Take over the rows of an earlier process up to `step`, the step its checkpoint stands at."""
        if not self.path.is_file():
            return
        with self.path.open(newline="") as file:
            whole = (line for line in file if line.endswith("\n"))  # a kill may have cut the last one short
            for row in csv.DictReader(whole):
                if (row.get("step") or "").isdigit() and int(row["step"]) <= step:
                    self._add(int(row["step"]), {k: v for k, v in row.items() if k and v and k != "step"})
        self._on_disk = 0
        self.save()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | str], step: int | None = None) -> None:
        """Take note of values at a step; they are written at the next `save`."""
        texts = {name: value if isinstance(value, str) else repr(float(value)) for name, value in metrics.items()}
        self._add(step or 0, {name: text for name, text in texts.items() if name != "epoch"})

    def _add(self, step: int, values: Mapping[str, str]) -> None:
        new = [name for name in values if name not in self._fields]
        if new or next(reversed(self._rows), -1) >= step:
            self._on_disk = 0  # a new column, or an earlier row changed: the file is written anew
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
