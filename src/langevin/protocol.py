"""How a value was computed: what must be equal before two values may stand in one column.

A protocol is a record of plain values. It holds what changes a value beside the model itself: the number of samples,
the extractor (its weights by their hash, its preprocessing), the reference by its hash, how pixels are rounded, how the
samples were made (which weights, sampler, times, guidance, labels, seed, evaluations of the model).
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from langevin.config.identity import flatten

VERSION = "langevin-1"
"""Of what the values of a record mean."""
PIXELS = "uint8: [-1, 1] to the nearest of 0..255"
"""How a sample becomes an image."""


def protocol(
    measured: Mapping[str, Any],
    samples: Mapping[str, Any] | None,
    settings: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The record that travels with some values.

    Args:
        measured: `Evaluation.record()`.
        samples: how the samples were made; None where that is not known.
        settings: each metric's own.
        values: each metric's, by their names.
    """
    metrics = {name: {"settings": dict(settings[name]), "values": sorted(values[name])} for name in values}
    return {
        "version": VERSION,
        **measured,
        "pixels": PIXELS,
        "samples": None if samples is None else dict(samples),
        "metrics": metrics,
    }


def digest(record: Mapping[str, Any], digits: int = 8) -> str:
    """A short name of a record."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:digits]


def of_value(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What of a protocol concerns one value, flat: by paths such as "samples.sampler.steps".

    Raises:
        KeyError: when it is no protocol of such a value.
    """
    owner = next((metric for metric in record["metrics"].values() if name in metric["values"]), None)
    if owner is None:
        raise KeyError(name)
    rest = {key: value for key, value in record.items() if key != "metrics"}
    return dict(flatten({**rest, "metric": owner["settings"]}))
