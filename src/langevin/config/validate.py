"""Finds every mistake in a config, all at once."""

import ast
import difflib
import functools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from langevin.config.describe import CONF
from langevin.config.describe import part_names as options
from langevin.config.migration import current
from langevin.config.signature import Field, TargetError, signature
from langevin.config.types import TARGET, describe, fits, hides_component, holds_components, takes_components
from langevin.errors import UserError

# Groups of which several options compose: their nodes hold named components.
PLURAL = ("auxiliaries", "callbacks", "conditions", "likelihoods", "loggers", "metrics", "operators", "rescalings")
# Groups that choose options of others; a task is a component besides, the rest only choose.
BUNDLES = ("formulation", "task", "experiment", "debug")
CHOOSERS = ("formulation", "experiment", "debug")
INSTEAD = {
    "fast_dev_run": "debug=fast, a few steps through all that a run does",
    "overfit_batches": "debug=overfit, which trains on a few samples",
    "evaluation=null": "metrics=[]: without metrics nothing is evaluated",
}
"""What a user may look for, and what there is in its place."""


class Mistake(NamedTuple):
    """A mistake in a config.

    Attributes:
        path: where, such as "sampler.steps".
        message: what is wrong and what is allowed.
    """

    path: str
    message: str


class ConfigError(UserError):
    """All the mistakes in a config, a line each."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{count} in the config:\n" + "\n".join(f"  {path}: {text}" for path, text in mistakes))


def groups() -> list[str]:
    """The names of all groups of options; those of Hydra's own groups, in conf/hydra, are not part of a run."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


@functools.cache
def groups_of(command: str) -> list[str]:
    """The groups that a command has."""
    file = OmegaConf.load(CONF / f"{command}.yaml")
    return [str(group) for entry in file.defaults if isinstance(entry, DictConfig) for group in entry]


def structure(
    cfg: DictConfig,
    options_of_command: Mapping[str, str],
    required: Collection[str] = (),
    optional: Collection[str] = (),
) -> list[Mistake]:
    """The mistakes that the config's shape shows: unknown keys, wrong types, missing values, non-components.

    Args:
        cfg: the composed config.
        options_of_command: the command's own options and their types, such as {"seed": "int", "edit.images": "str"}.
        required: the groups of which an option must be chosen.
        optional: the groups that may be left out.
    """
    mistakes: list[Mistake] = []
    values = _resolved(cfg, "", mistakes)
    root = {name: Field(ast.parse(kind, mode="eval").body, False) for name, kind in options_of_command.items()}
    nameless = {path.removesuffix(f".{TARGET}") for path, _ in mistakes}  # what these are is not known
    mistakes += [each for each in _root(values, root, [*root, *required, *optional]) if each.path not in nameless]
    lost = {path.partition(".")[0] for path, _ in mistakes}
    for group in required:
        if values.get(group) is None and group not in lost:
            mistakes.append(Mistake(group, f"must be chosen: {_choices(group)}"))
    return mistakes


def unresolved(cfg: DictConfig) -> list[Mistake]:
    """The values of a config that are given by reference to what is not there, such as ``${nothing}``."""
    mistakes: list[Mistake] = []
    _resolved(cfg, "", mistakes)
    return mistakes


def _resolved(node: Any, path: str, mistakes: list[Mistake]) -> Any:
    """A node as plain values; what cannot be resolved is left out and noted in `mistakes`."""
    keys: Collection[Any]
    if isinstance(node, DictConfig):
        keys = list(node)
    elif isinstance(node, ListConfig):
        keys = range(len(node))
    else:
        return node
    values = {}
    for key in keys:
        place = f"{path}.{key}".removeprefix(".")
        try:
            values[key] = "???" if OmegaConf.is_missing(node, key) else _resolved(node[key], place, mistakes)
        except OmegaConfBaseException as error:
            given = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
            mistakes.append(Mistake(place, f"is {given}, which cannot be resolved: {str(error).splitlines()[0]}"))
    return list(values.values()) if isinstance(node, ListConfig) else values


def _root(values: Mapping[str, Any], root: dict[str, Field], known: list[str]) -> Iterator[Mistake]:
    for key, value in values.items():
        within = [name for name in root if name.startswith(f"{key}.")]
        if key in root:
            yield from _value(key, value, root[key])
        elif within and isinstance(value, Mapping):
            yield from _root({f"{key}.{name}": each for name, each in value.items()}, root, known)
        elif within:
            yield Mistake(key, f"is {shown(value)}; allowed: its options {', '.join(within)}")
        elif key not in known:
            yield Mistake(key, unknown(key, known))
        elif key in PLURAL and isinstance(value, Mapping):
            chosen = [name for name, node in value.items() if isinstance(node, Mapping) and TARGET in node]
            for name, node in value.items():
                if name in chosen or name in options(key):
                    yield from _component(f"{key}.{name}", node, f"{key}=[{','.join([*chosen, name])}]")
                else:
                    yield Mistake(f"{key}.{name}", unknown(name, [*chosen, *options(key)]))
        elif value is not None and value != []:
            yield from _component(key, value, _choices(key))


def _choices(group: str) -> str:
    return f"{group}=NAME with one of {', '.join(options(group))}"


def _component(path: str, node: Any, allowed: str) -> Iterator[Mistake]:
    if not isinstance(node, Mapping):
        yield Mistake(path, f"is {node!r}, but a component is chosen by name: {allowed}")
        return
    if TARGET not in node:
        yield Mistake(path, f"is not chosen; choose it first: {allowed}")
        return
    try:
        fields = signature(str(node[TARGET]))
    except TargetError as error:
        yield Mistake(f"{path}.{TARGET}", str(error))
        return
    for key, value in node.items():
        if key == TARGET:
            continue
        kind = describe(fields[key].annotation) if fields is not None and key in fields else "plain values"
        slot = fields is not None and key in fields and takes_components(fields[key].annotation)
        if (fields is not None and key not in fields) or str(key).startswith("_"):
            # Every parameter a user may set is listed in the YAML; the rest is handed in by the program.
            yield Mistake(f"{path}.{key}", unknown(key, [name for name in fields or () if name in node]))
        elif hides_component(value) and not slot:
            yield Mistake(f"{path}.{key}", f"holds a component where none is expected; allowed: {kind}")
        elif isinstance(value, Mapping) and TARGET in value:
            yield from _component(f"{path}.{key}", value, "a component")
        elif holds_components(value):
            for name, part in value.items():
                yield from _component(f"{path}.{key}.{name}", part, "a component")
        else:
            yield from _value(f"{path}.{key}", value, Field(None, False) if fields is None else fields[key])


def _value(path: str, value: Any, field: Field) -> Iterator[Mistake]:
    if value == "???":
        yield Mistake(path, f"must be given; allowed: {describe(field.annotation)}")
    elif not fits(value, field.annotation):
        yield Mistake(path, f"is {shown(value)}; allowed: {describe(field.annotation)}")


def shown(value: Any) -> str:
    """A config's value for people."""
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)


def unknown(key: str, known: list[str]) -> str:
    """The message for an unknown key."""
    if current(key) in known:
        return f"is called {current(key)} now"
    if key in INSTEAD:
        return f"no such option; instead, there is {INSTEAD[key]}"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no such option{hint}; allowed: {', '.join(dict.fromkeys(known)) or 'none'}"
