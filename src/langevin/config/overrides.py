"""Overrides as a shell gives them, made ready for Hydra's grammar.

The grammar is one of values: `2024` is a number, `a,b` a sweep, `p/epoch=3.ckpt` a mistake. Where an option is a text
(a path, a name), all of these are meant as they stand.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from langevin.config.identity import debug_of
from langevin.config.signature import TargetError, signature
from langevin.config.stored import read_yaml, walk
from langevin.config.types import TARGET
from langevin.config.validate import CONF, PLURAL, options, unknown
from langevin.errors import UserError

TEXTS = {"str", "Path"}
ALTERNATIVES = {"None", "list[str]"}
"""What the type of a text is made of, and what it may be instead."""


def literal(argument: str, options_of_command: Mapping[str, str], own: Iterable[str], sweeps: bool) -> str:
    """An override whose value is quoted where its option is a text and Hydra would read it as something else.

    Args:
        argument: the override, `key=value`.
        options_of_command: the command's own options and their types.
        own: the command's groups.
        sweeps: whether several values, with commas between them, are a sweep (`-m`); else a comma is part of a text.
    """
    key, equals, value = argument.partition("=")
    if not equals or not is_text(key.lstrip("+"), options_of_command, own):
        return argument
    if value in ("", "null", "???") or value[0] in "'\"[" or "${" in value:
        return argument
    parts = value.split(",") if sweeps else [value]
    if sweeps and (read := parsed(argument)) is not None and read.is_sweep_override() and "(" in value:
        return argument  # choice(...), range(...), glob(...)
    return f"{key}={','.join(part if _stands(part) else quoted(part) for part in parts)}"


def _stands(value: str) -> bool:
    """Whether Hydra takes a value for just this text, null, or a text in quotes."""
    read = parsed(f"x={value}")
    if read is None or read.is_sweep_override():
        return False
    return value == "null" or value[:1] in ("'", '"') or read.value() == value


def quoted(text: str) -> str:
    """A text in the quotes of Hydra's grammar, in which a backslash counts only before a quote."""
    found = ""
    for index, piece in enumerate(text.split("'")):
        slashes = len(found) - len(found.rstrip("\\"))
        found += piece if index == 0 else "\\" * slashes + "\\'" + piece
    slashes = len(found) - len(found.rstrip("\\"))
    return "'" + found + "\\" * slashes + "'"


def parsed(argument: str) -> Override | None:
    """An override by Hydra's grammar; None where it is against it."""
    with suppress(HydraException):
        (found,) = OverridesParser.create().parse_overrides([argument])
        return found
    return None


def is_text(key: str, options_of_command: Mapping[str, str], own: Iterable[str]) -> bool:
    """Whether an option is a text: one of the command's own, or a field of a part of one of its groups."""
    if key in options_of_command:
        return _texts(ast.parse(options_of_command[key], mode="eval").body)
    group, *rest = key.split(".")
    return group in own and len(rest) == (2 if group in PLURAL else 1) and rest[-1] in _fields_of_text(group)


@cache
def _fields_of_text(group: str) -> frozenset[str]:
    """The fields that are texts in some option of a group, and in none anything else."""
    texts: dict[str, bool] = {}
    for name in options(group):
        for _, node in walk(read_yaml(CONF / group / f"{name}.yaml"), group):
            if not isinstance(node, Mapping) or TARGET not in node:
                continue
            with suppress(TargetError):
                for field, read in (signature(node[TARGET]) or {}).items():
                    if field in node:
                        texts[field] = texts.get(field, True) and _texts(read.annotation)
    return frozenset(field for field, all_texts in texts.items() if all_texts)


def _texts(annotation: ast.expr | None) -> bool:
    names = {ast.unparse(part) for part in _union(annotation)}
    return bool(names & TEXTS) and names <= TEXTS | ALTERNATIVES


def _union(annotation: ast.expr | None) -> Iterator[ast.expr]:
    if isinstance(annotation, ast.BinOp):
        yield from _union(annotation.left)
        yield from _union(annotation.right)
    elif annotation is not None:
        yield annotation


def require_consistent(arguments: Iterable[str], own: Iterable[str]) -> None:
    """Check that no option is given both a value and fields, of which one would be silently lost.

    Raises:
        UserError: when one is, or a part is chosen by what is not a name, or twice.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not key.startswith(("-", "~", "hydra")):
            given[key.lstrip("+")] = value
    for key, value in given.items():
        if key in own:
            read = parsed(f"x={value}")
            chosen = None if read is None or read.is_sweep_override() else read.value()
            if not isinstance(chosen, str | list | None):
                raise UserError(f"{key}={value}: {unknown(value, options(key))}")
            if isinstance(chosen, list) and len({str(name) for name in chosen}) < len(chosen):
                raise UserError(f"{key}={value}: names one of them twice; allowed: each once")
            continue
        fields = [other for other in given if other.startswith(f"{key}.")]
        if fields and value != "null":
            raise UserError(f"{key}={value}: {fields[0]} is given too, and only one of them can be; leave one out")


def settle(cfg: DictConfig, overrides: Iterable[str], own: Iterable[str]) -> None:
    """Drop fields of a part that the command line has replaced by another, where it has not set them itself.

    Fields that an experiment has set on one network, for example, are not used by another, and the user has not typed
    them. A part of the same class under another name, such as another `trainer`, keeps them. A part whose `_target_`
    alone is set keeps those that the new class takes. A debug preset sets fields only of parts that are there, and
    gives a named run a name of its own.

    Args:
        cfg: a training config composed of the overrides; changed in place. Hydra must be initialized.
        overrides: those of the command line.
        own: the command's groups.
    """
    given = list(overrides)
    _drop_of_experiment(cfg, given, own)
    _drop_of_debug(cfg, given)
    _drop_of_class(cfg, given)


def _drop_of_experiment(cfg: DictConfig, given: list[str], own: Iterable[str]) -> None:
    from hydra import compose

    chosen = {override.partition("=")[0].lstrip("~") for override in given} & set(own) - {"experiment", "debug"}
    experiments = [override for override in given if override.startswith("experiment=")]
    if not chosen or not experiments or experiments[-1] == "experiment=null":
        return
    # A field that is deleted (`~data.crop`) may be the experiment's own; a part (`~lr_schedule`) is anyone's.
    fields = [override for override in given if override.startswith("~") and "." in override.partition("=")[0]]
    bare = compose("train", [override for override in given if override not in (*experiments, *fields)])
    before = compose("train", experiments)
    with open_dict(cfg):
        for group in chosen:
            old, new = before.get(group), bare.get(group)
            if group in PLURAL:
                for name in list(cfg.get(group) or {}):
                    if name not in (new or {}):
                        del cfg[group][name]
            elif _class_of(old) != _class_of(new):
                cfg[group] = new


def _drop_of_debug(cfg: DictConfig, given: list[str]) -> None:
    chosen = [value for key, _, value in (override.partition("=") for override in given) if key == "debug"]
    if not chosen or (start := debug_of({"debug": chosen[-1]})) is None:
        return
    if cfg.get("name"):
        cfg.name = f"{start}-{cfg.name}"
    typed = {override.partition("=")[0].lstrip("+~") for override in given}
    preset = read_yaml(CONF / "debug" / f"{chosen[-1]}.yaml")
    nodes = {group: fields for group, fields in preset.items() if isinstance(fields, Mapping) and group not in PLURAL}
    nodes |= {f"{group}.{name}": fields for group in PLURAL for name, fields in preset.get(group, {}).items()}
    with open_dict(cfg):
        for path, fields in nodes.items():
            above, _, name = path.rpartition(".")
            parent = OmegaConf.select(cfg, above) if above else cfg
            if not isinstance(parent, DictConfig) or not isinstance(node := parent.get(name), DictConfig):
                continue
            unused = set(fields)
            with suppress(TargetError):
                if TARGET in node:
                    unused -= set(signature(str(node[TARGET])) or fields)
            for field in unused.intersection(node) - {key.removeprefix(f"{path}.") for key in typed}:
                del node[field]
            if not node:
                del parent[name]


def _drop_of_class(cfg: DictConfig, given: list[str]) -> None:
    """Drop the fields that a class set by `PATH._target_=` does not take, and that came with the class before it."""
    typed = {override.partition("=")[0].lstrip("+~") for override in given}
    for path in [key.removesuffix(f".{TARGET}") for key in typed if key.endswith(f".{TARGET}")]:
        node = OmegaConf.select(cfg, path)
        if not isinstance(node, DictConfig):
            continue
        with suppress(TargetError, OmegaConfBaseException), open_dict(cfg):  # is reported with the config's structure
            target = node.get(TARGET)
            if not isinstance(target, str) or (fields := signature(target)) is None:
                continue
            for name in [str(key) for key in node if key != TARGET and key not in fields]:
                if not any(f"{key}.".startswith(f"{path}.{name}.") for key in typed):
                    del node[name]


def _class_of(node: object) -> object:
    return node.get(TARGET) if isinstance(node, Mapping | DictConfig) else None
