"""How a value was computed: what must be equal before two values may stand in one column.

A protocol is a record of plain values. It holds what changes a value beside the model itself: the number of samples,
the extractor (its weights by their hash, its preprocessing), the reference by its hash, how pixels are rounded, how the
samples were made (which weights, sampler, times, guidance, labels, seed, evaluations of the model).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langevin.config.identity import SINCE, flatten
from langevin.config.migration import migrated
from langevin.config.naming import named, telling, typed_name
from langevin.config.types import TARGET

VERSION = "langevin-1"
"""Of what the values of a record mean."""
PIXELS = "uint8: [-1, 1] to the nearest of 0..255"
"""How a sample becomes an image."""
DERIVED = "samples.evaluations"
"""Follows from the sampler: it may differ wherever the sampler may, and is then always shown."""
METRIC = "metric."
"""What begins the paths of a metric's own settings in the flat protocol of a value."""
ADDED = {f"samples.{path}": value for path, value in SINCE.items()}
"""Paths and values by which earlier and later protocols would differ where nothing else does."""
DIGITS = 8
"""Of a digest that is shown to people."""


def protocol(
    measured: Mapping[str, Any],
    samples: Mapping[str, Any] | None,
    settings: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The record that travels with some values.

    Args:
        measured: how many samples, which features and which reference, see `Evaluation.measure`.
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


def of_value(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What of a protocol concerns one value, flat: by paths such as "samples.sampler.steps", under today's names.

    Options that were added later are left out at the values that all had before.

    Raises:
        KeyError: when it is no protocol of such a value.
    """
    owner = next((metric for metric in record["metrics"].values() if name in metric["values"]), None)
    if owner is None:
        raise KeyError(name)
    rest = {key: value for key, value in record.items() if key != "metrics"}
    flat = flatten(migrated({**rest, "metric": owner["settings"]}))
    return {path: value for path, value in flat if (path, value) not in ADDED.items()}


def differing(protocols: Sequence[dict[str, Any]]) -> list[str]:
    """The paths at which flat protocols differ."""
    paths = dict.fromkeys(path for protocol in protocols for path in protocol)
    absent = object()
    return [path for path in paths if any(p.get(path, absent) != protocols[0].get(path, absent) for p in protocols)]


def may_vary(path: str, vary: Sequence[str]) -> bool:
    """Whether values whose protocols differ at a path stay comparable, given the parts that may vary."""
    meant = any(path == part or path.startswith(f"{part}.") for part in vary)
    return meant or (path == DERIVED and any(part.startswith("samples") for part in vary))


def telling_settings(protocols: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What tells values apart, but for the settings of single metrics, as people read and type it.

    Args:
        protocols: flat; one for each row of a table.

    Returns:
        The cells of each column by its head, such as "sampler", "sampler.steps" or "NFE".
    """
    paths = [path for path in telling(protocols) if not path.startswith(METRIC)]
    return {
        "NFE" if path == DERIVED else typed_name(path): [stated(protocol, path) for protocol in protocols]
        for path in paths
    }


def stated(protocol: Mapping[str, Any], path: str) -> str:
    """A protocol's value at a path, as one types it, digests cut; "none" where there is no such component."""
    if path not in protocol:
        return "none" if path.endswith(f".{TARGET}") else ""
    text = named(path, protocol[path])
    return text[:DIGITS] if path.endswith("sha256") else text
