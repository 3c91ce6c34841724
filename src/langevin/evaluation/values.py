"""The files of values that evaluate.py writes, with their protocols."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import langevin
from langevin.errors import UserError
from langevin.evaluation.protocol import of_value
from langevin.files import require_regular, write_json
from langevin.images import write_png

FILE = "metrics.json"


class Measured(NamedTuple):
    """One metrics.json.

    Attributes:
        place: the file.
        step: of the model; None where it is not known.
        values: by their names.
        protocols: of each value, flat.
    """

    place: Path
    step: int | None
    values: dict[str, float]
    protocols: dict[str, dict[str, Any]]


def read_measured(path: Path) -> Measured:
    """Read what evaluate.py has written.

    Raises:
        UserError: when it has not.
    """
    try:
        content = json.loads(require_regular(path).read_text())
        values = dict(content["metrics"])
        protocols = {name: of_value(content["protocol"], name) for name in values}
        step = (content.get("model") or {}).get("step")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no {FILE} of evaluate.py ({type(error).__name__}: {error})") from error
    return Measured(path, step, values, protocols)


class Result(NamedTuple):
    """What an evaluation has found, the same on every process.

    Attributes:
        values: by their names.
        protocol: how they were computed, see `langevin.evaluation.protocol`.
        details: what metrics report beside their values, by the metrics' names: plain values.
        figures: what metrics show beside their values, by the metrics' names: uint8 (H, W, 3).
        scale: how many times the figures are to be enlarged in a PNG.
    """

    values: dict[str, float]
    protocol: dict[str, Any]
    details: dict[str, dict[str, Any]]
    figures: dict[str, NDArray[np.uint8]]
    scale: int

    def write(self, out: Path, **about: Any) -> None:
        """Write ``metrics.json`` and the figures into a folder, and print the values.

        Args:
            out: the folder.
            **about: what was measured, and against what: plain values.
        """
        for name, figure in self.figures.items():
            write_png(out / f"{name}.png", figure, self.scale)
        content = {"metrics": self.values, **about, "protocol": self.protocol, "version": langevin.__version__}
        write_json(out / FILE, content | ({"details": self.details} if self.details else {}))
        width = max(map(len, self.values))
        print("\n".join(f"{name:{width}}  {value:.6g}" for name, value in self.values.items()))
