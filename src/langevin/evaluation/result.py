"""What an evaluation has found, and the files that it becomes."""

from pathlib import Path
from typing import Any, NamedTuple

import langevin
from langevin.evaluation.values import FILE
from langevin.files import write_json
from langevin.images import Figure


class EvaluationResult(NamedTuple):
    """What an evaluation has found, the same on every process.

    Attributes:
        values: by their names.
        protocol: how they were computed, see `langevin.evaluation.protocol`.
        details: what metrics report beside their values, by the metrics' names: plain values.
        figures: what metrics show beside their values, by the metrics' names.
    """

    values: dict[str, float]
    protocol: dict[str, Any]
    details: dict[str, dict[str, Any]]
    figures: dict[str, Figure]

    def write(self, out: Path, **about: Any) -> None:
        """Write ``metrics.json`` and the figures into a folder, and print the values.

        Args:
            out: the folder.
            **about: what was measured, and against what: plain values.
        """
        for name, figure in self.figures.items():
            figure.write(out / f"{name}.png")
        content = {"metrics": self.values, **about, "protocol": self.protocol, "version": langevin.__version__}
        write_json(out / FILE, content | ({"details": self.details} if self.details else {}))
        width = max(map(len, self.values))
        print("\n".join(f"{name:{width}}  {value:.6g}" for name, value in self.values.items()))
