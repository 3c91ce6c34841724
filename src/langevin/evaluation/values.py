"""Reads the values that langevin evaluate has written, with their protocols; imports no torch."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from langevin.errors import UserError
from langevin.evaluation.protocol import of_value
from langevin.files import require_regular

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
    """Read what langevin evaluate has written.

    Raises:
        UserError: when it has not.
    """
    try:
        content = json.loads(require_regular(path).read_text())
        values = dict(content["metrics"])
        protocols = {name: of_value(content["protocol"], name) for name in values}
        step = (content.get("model") or {}).get("step")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no {FILE} of langevin evaluate ({type(error).__name__}: {error})") from error
    return Measured(path, step, values, protocols)
