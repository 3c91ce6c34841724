"""Reads the values that evaluate.py has written, with their protocols."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from langevin.errors import UserError
from langevin.files import require_regular
from langevin.protocol import of_value

FILE = "metrics.json"
DERIVED = "samples.evaluations"
"""Follows from the sampler: it may differ wherever the sampler may, and is then always shown."""


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


def differing(protocols: Sequence[dict[str, Any]]) -> list[str]:
    """The paths at which flat protocols differ."""
    paths = dict.fromkeys(path for protocol in protocols for path in protocol)
    absent = object()
    return [path for path in paths if any(p.get(path, absent) != protocols[0].get(path, absent) for p in protocols)]


def may_vary(path: str, vary: Sequence[str]) -> bool:
    """Whether values whose protocols differ at a path stay comparable, given the parts that may vary."""
    meant = any(path == part or path.startswith(f"{part}.") for part in vary)
    return meant or (path == DERIVED and any(part.startswith("samples") for part in vary))
