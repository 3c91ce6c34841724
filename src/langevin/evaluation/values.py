"""The files of values that evaluate.py writes, with their protocols."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import langevin
from langevin.errors import UserError
from langevin.evaluation.protocol import of_value
from langevin.files import require_regular, write_json

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


def write_values(
    out: Path,
    values: Mapping[str, Mapping[str, float]],
    protocol: Mapping[str, Any],
    details: Mapping[str, Any],
    **about: Any,
) -> None:
    """Write ``metrics.json`` into a folder, and print the values.

    Args:
        out: the folder.
        values: each metric's, by their names.
        protocol: how they were computed, see `langevin.evaluation.protocol`.
        details: what the metrics report beside them.
        **about: what was measured, and against what: plain values.
    """
    flat = {name: value for found in values.values() for name, value in found.items()}
    content = {"metrics": flat, **about, "protocol": protocol, "version": langevin.__version__}
    write_json(out / FILE, content | ({"details": details} if details else {}))
    width = max(map(len, flat))
    print("\n".join(f"{name:{width}}  {value:.6g}" for name, value in flat.items()))
