"""What differs between configs or protocols, and how it is called for people: as one types it in a command."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langevin.config.types import TARGET
from langevin.config.validate import CONF

DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
SHOWN = 8
"""How much of a digest is shown."""


def differing(configs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of each flat config the values that are not the same in all; those of a component, among its own kind."""
    seen: dict[tuple[Any, ...], list[Any]] = {}
    for config in configs:
        for path, value in config.items():
            values = seen.setdefault((path, *map(str, kinds(config, path))), [])
            if value not in values:
                values.append(value)
    varied = {path for (path, *_), values in seen.items() if len(values) > 1}
    for config in configs:
        yield {path: value for path, value in config.items() if path in varied}


def telling(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths that tell some flat records apart, in their order.

    Of a component these are its class, where that differs or some have no such component, and those parameters that
    differ among the records that have them.
    """
    held: dict[str, list[Any]] = {}
    for record in records:
        for path, value in record.items():
            held.setdefault(path, []).append(value)

    def tells(path: str) -> bool:
        values = held[path]
        if any(value != values[0] for value in values):
            return True
        if len(values) == len(records):
            return False
        # What is absent elsewhere: of a component its class says it alone, and says it better than `GROUP: null`.
        is_part = any(f"{above}.{TARGET}" in held for above in parents(path))
        return path.endswith(TARGET) or not (is_part or f"{path}.{TARGET}" in held)

    return [path for path in held if tells(path)]


def kinds(config: Mapping[str, Any], path: str) -> Iterator[Any]:
    """The classes of the components that a value is a parameter of."""
    return (config.get(f"{above}.{TARGET}") for above in parents(path) if f"{above}.{TARGET}" != path)


def parents(path: str) -> Iterator[str]:
    """The paths of all that a value lies in, the outermost first."""
    parts = path.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)))


def short_names(paths: set[str]) -> dict[str, str]:
    """The shortest suffixes of paths that distinguish them; for a component's class, the component."""

    def end(path: str, length: int) -> str:
        return ".".join(path.removesuffix(f".{TARGET}").split(".")[-length:])

    short = {}
    for path in paths:
        lengths = range(1, path.count(".") + 2)
        unique = (n for n in lengths if sum(end(other, n) == end(path, n) for other in paths) == 1)
        short[path] = end(path, next(unique, len(lengths)))
    return short


def typed_name(path: str) -> str:
    """What one types before "=": "sampler" and "sampler.steps" for a protocol's values of the samples.

    What a digest is of stands for the digest.
    """
    return path.removeprefix("samples.").removesuffix(f".{TARGET}").removesuffix(".sha256")


def named(path: str, value: Any) -> str:
    """A value as one types it: a class as the option that chooses it, else by its own name."""
    if not path.endswith(f".{TARGET}"):
        return DIGEST.sub(lambda found: found[0][:SHOWN], str(value).replace(" ", ""))
    own = str(value).rpartition(".")[2]
    return options_by_class(path.split(".")[-2]).get(str(value), own)


@functools.cache
def options_by_class(group: str) -> dict[str, str]:
    """The options of a group by their classes; of several with one class, the one named like it, if there is."""
    found: dict[str, list[str]] = {}
    for file in sorted((CONF / group).glob("*.yaml")):
        # The part itself, or in a file that chooses options of other groups too, the part under the group's name.
        if target := re.search(rf"^(?:{group}:\n  )?{TARGET}: *(\S+)", file.read_text(), re.MULTILINE):
            found.setdefault(target[1], []).append(file.stem)

    def is_like(option: str, path: str) -> bool:
        return option.replace("_", "") == path.rpartition(".")[2].lower()

    alone = {path: [name for name in names if len(names) == 1 or is_like(name, path)] for path, names in found.items()}
    return {path: names[0] for path, names in alone.items() if names}
