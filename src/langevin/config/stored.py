"""Configs that were stored with a run. The run may be a stranger's: its config is data, and little of it is built.

A config that was composed here holds what its user typed. One that was stored holds what anybody wrote into a file that
is passed on, so it is read without resolving anything, and a part is built only where our own `conf` names its class.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from langevin.config.migration import migrated
from langevin.config.types import TARGET
from langevin.config.validate import CONF, PLURAL
from langevin.errors import UserError

DEEPEST, LONGEST, GREATEST = 50, 100_000, 2**63
"""Of a config: how deeply it is nested, how many events of YAML it has, and a bound of its whole numbers."""


LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML has it
PLACES = {
    "data": ("download_dir",),
    "loader": ("cache_dir",),
    "codec": ("run",),
    "init": ("checkpoint",),
    "auxiliaries": ("run",),
}
"""By their groups, the options that determine where something is written, or which other run is read."""


class StoredError(ValueError):
    """What is wrong with a stored config, worded to follow its path: "is not YAML"."""


def read_yaml(path: Path) -> Any:
    """A YAML file's plain values.

    Raises:
        OSError: when it cannot be read.
        ValueError: when it is not text.
        yaml.YAMLError: when it is not YAML; and what else PyYAML raises of damaged files: TypeError, RecursionError.
    """
    return yaml.load(path.read_text(), LOADER)


def read_stored(text: Any) -> DictConfig:
    """Read a stored config as plain values, under today's names.

    Args:
        text: YAML, as `OmegaConf.to_yaml` wrote it, resolved.

    Raises:
        StoredError: when it is no mapping in YAML, has aliases (which may hold themselves) or interpolations (which
            would read this machine's environment).
    """
    if not isinstance(text, str):
        raise StoredError(f"is not text but of the type {type(text).__name__}")
    try:
        depth = 0
        for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise StoredError("has YAML aliases, which no config of Langevin's has")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or number > LONGEST:
                raise StoredError("is larger or more deeply nested than any config of Langevin's")
        cfg = OmegaConf.create(text)
        values = OmegaConf.to_container(cfg, resolve=False)
    except StoredError:
        raise
    except Exception as error:  # what foreign YAML raises may be anything
        reason = str(error).splitlines()
        raise StoredError(f"is not a config in YAML ({reason[0] if reason else type(error).__name__})") from error
    if not isinstance(cfg, DictConfig) or not isinstance(values, dict):
        raise StoredError("is not a mapping of options to values")
    for path, value in walk(values):
        if not isinstance(value, dict | list | str | int | float | None) or (
            isinstance(value, int) and abs(value) >= GREATEST
        ):
            raise StoredError(f"has a value at {path} that no config of Langevin's has")
        if any(isinstance(each, str) and "${" in each for each in (path, value)):
            raise StoredError(f"has an interpolation at {path}; a stored config holds only values")
    return OmegaConf.create(migrated(values))


def read_held(path: Path) -> DictConfig:
    """Read the config.yaml that a run's folder holds.

    Raises:
        UserError: when it cannot be read, or is none.
    """
    try:
        return read_stored(path.read_text())
    except StoredError as error:
        raise UserError(f"{path} {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is not text") from error


def forget_places(cfg: DictConfig) -> None:
    """Have a stored config decide nothing about where something is written, or which other runs are read.

    Args:
        cfg: the config, by `read_stored`; changed in place.
    """
    for group, names in PLACES.items():
        node = cfg.get(group)
        nodes = [node.get(part) for part in node] if group in PLURAL and isinstance(node, DictConfig) else [node]
        for each in nodes:
            for name in names:
                if isinstance(each, DictConfig) and name in each:
                    each[name] = None


def refuse_untrusted(cfg: DictConfig, groups: Collection[str], trust: Sequence[str] = ()) -> None:
    """Check that some groups of a stored config name only classes that may be built; nothing is imported to find out.

    Args:
        cfg: the config, by `read_stored`.
        groups: those that are about to be built.
        trust: packages, modules or classes by their full names that may be built beside those of our own `conf`.

    Raises:
        StoredError: when one names another class, or has a key by which Hydra calls something.
    """
    values = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    for group in groups:
        if not isinstance(values.get(group), dict | list | None):
            raise StoredError(f"has {values[group]!r} for {group}; allowed: a component")
        for path, value in walk(values.get(group) or {}, group):
            key = path.rpartition(".")[2]
            if isinstance(value, dict) and not all(isinstance(name, str) and name.isidentifier() for name in value):
                raise StoredError(f"has keys at {path} that are not names")
            if key == TARGET and not _allowed(group, value, trust):
                raise StoredError(
                    f"names {value!r} at {path}, which is not a class of conf/{group} and would be run on this "
                    f"machine; only if you know that code and who wrote it, add trust=[{str(value).partition('.')[0]}]"
                )
            if key != TARGET and key.startswith("_"):
                raise StoredError(f"has the key {path}; a stored config has none that begins with _ but {TARGET}")


def refuse_modality(path: str, trust: Sequence[str] = ()) -> None:
    """Check that a stored modality's class may be imported: one of ours, or of what the user trusts.

    Raises:
        StoredError: when it may not.
    """
    if not _is_trusted(path, ["langevin.modalities", *trust]):
        package = path.partition(".")[0]
        raise StoredError(f"names the modality {path!r}; only if you know that code, add trust=[{package}]")


def _is_trusted(target: str, trust: Sequence[str]) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in trust)


def _allowed(group: str, target: Any, trust: Sequence[str]) -> bool:
    if not isinstance(target, str):
        return False
    return target in targets(group) or _is_trusted(target, trust)


@cache
def targets(group: str) -> frozenset[str]:
    """The classes and functions that the options of a group name, at any depth."""
    found: set[str] = set()
    for path in (CONF / group).glob("*.yaml"):
        node = read_yaml(path)
        found.update(value for place, value in walk(node) if place.rpartition(".")[2] == TARGET)
    return frozenset(found)


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All of a nested value's parts with their paths, itself included where it has one."""
    if path:
        yield path, node
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from walk(value, f"{path}.{key}" if path else str(key))
