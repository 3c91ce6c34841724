"""Builds a component from its node, and reports a mistake with its config path; imports no Lightning."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import UnsupportedValueType

from langevin.assembly.handed import HANDED
from langevin.config.types import TARGET, holds_components
from langevin.config.validate import ConfigError, Mistake, shown
from langevin.errors import OptionError, UserError

DECIDED = "is decided by the rest of the config; leave it out"


def make(cfg: DictConfig, path: str, **offered: Any) -> Any:
    """Build the component that the config holds at `path`.

    Args:
        cfg: the whole config.
        path: where the component's node is, such as "sampler" or "callbacks.samples".
        **offered: what the program can pass on, of those in `HANDED`: each is given to a constructor that has a
            parameter of its name, and to those of the named components that a field of the node holds.

    Raises:
        ConfigError: when the class cannot be imported, or its constructor finds a mistake.
    """
    assert offered.keys() <= HANDED.keys(), offered.keys() - HANDED.keys()
    node = OmegaConf.select(cfg, path)
    target = target_of(cfg, path)
    parameters = inspect.signature(target).parameters
    accepted = {name: offered[name] for name in parameters if name in offered}
    wrong = [Mistake(f"{path}.{name}", DECIDED) for name in accepted if name in node]
    wrong += [
        Mistake(path, f"needs {HANDED[name]}, and here is none")
        if name in HANDED
        else Mistake(f"{path}.{name}", "must be given")
        for name, parameter in parameters.items()
        if is_needed(parameter) and name not in {*node, *accepted}
    ]
    if wrong:
        raise ConfigError(wrong)
    parts = {
        name: {key: make(cfg, f"{path}.{name}.{key}", **offered) for key in value}
        for name, value in node.items()
        if holds_components(value)
    }
    # Hydra is given the plain values only; the offered objects never pass through a config. Its flags are written into
    # a copy: as arguments they cost a merge of two configs, and a component 1.7 ms instead of 0.9 ms.
    node = copy.deepcopy(node)
    with open_dict(node):
        node.update(_partial_=True, _recursive_=not parts, _convert_="all")
    construct = hydra.utils.instantiate(node)
    try:
        return construct(**accepted, **parts)
    except UserError as error:
        raise ConfigError(mistakes_of(cfg, path, error)) from error


def is_needed(parameter: inspect.Parameter) -> bool:
    """Whether a call must give the parameter."""
    single = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    return single and parameter.default is parameter.empty


def target_of(cfg: DictConfig, path: str) -> Callable[..., Any]:
    """The class or function that the component at `path` names.

    Raises:
        ConfigError: when importing it fails, with the cause.
    """
    target = OmegaConf.select(cfg, path)[TARGET]
    try:
        return hydra.utils.get_object(target)
    except Exception as error:  # importing a module can raise anything
        cause = error.__cause__ or error
        text = f"importing '{target}' failed: {type(cause).__name__}: {cause}"
        raise ConfigError([Mistake(f"{path}.{TARGET}", text)]) from error


def try_instantiate(cfg: DictConfig, path: str, **offered: Any) -> tuple[Any, list[Mistake]]:
    """Build the component at `path` as `make` does, to find all its mistakes.

    A constructor stops at the first. So each rejected value is replaced by its default, until the constructor succeeds.

    Returns:
        the component, None when it had a mistake; and the mistakes.
    """
    mistakes: list[Mistake] = []
    changed: DictConfig | None = cfg
    while changed is not None:
        cfg, changed = changed, None
        try:
            component = make(cfg, path, **offered)
            return (None if mistakes else component), mistakes
        except ConfigError as error:
            found = error.mistakes
            if [each.path for each in found] == [path] and is_foreign(error):
                found = [traced(cfg, path, found[0].message, offered)]
        except ValueError as error:  # of another library, such as torch's optimizers
            found = [traced(cfg, path, str(error), offered)]
        for each in found:
            field = each.path.removeprefix(f"{path}.")
            if each not in mistakes and field in OmegaConf.select(cfg, path) and field != TARGET:
                changed = with_default(changed or cfg, path, field) or changed
        mistakes += [each for each in found if each not in mistakes]
    return None, mistakes


def with_default(cfg: DictConfig, path: str, field: str) -> DictConfig | None:
    """The config in which a field of the component at `path` has its constructor's default; None where it has it."""
    parameter = inspect.signature(target_of(cfg, path)).parameters.get(field)
    default = inspect.Parameter.empty if parameter is None else parameter.default
    if default is inspect.Parameter.empty or default == OmegaConf.select(cfg, path)[field]:
        return None
    changed = copy.deepcopy(cfg)
    try:
        OmegaConf.select(changed, path)[field] = default
    except UnsupportedValueType:  # no value that a config could hold
        return None
    return changed


def is_foreign(error: BaseException) -> bool:
    """Whether the error is another library's, which does not name a field of the config."""
    while error.__cause__ is not None:
        error = error.__cause__
    return not isinstance(error, UserError)


def traced(cfg: DictConfig, path: str, message: str, offered: Mapping[str, Any]) -> Mistake:
    """The error of another library's constructor, as a mistake of the field that causes it.

    The message is not parsed: a field is at fault if the constructor succeeds, or else reports another error, once that
    field alone has its default.

    Args:
        cfg: the whole config.
        path: of the component's node.
        message: the constructor's error message.
        offered: see `make`.

    Returns:
        the mistake of that field; where it may be several, of the whole node, with all fields that may be meant.
    """
    given = {str(key): value for key, value in OmegaConf.select(cfg, path).items() if key != TARGET}
    content: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for field in given:
        if (changed := with_default(cfg, path, field)) is None:
            continue
        default = OmegaConf.select(changed, path)[field]
        try:
            make(changed, path, **offered)
            content[field] = default
        except ConfigError as error:
            if error.mistakes != [Mistake(path, message)]:
                other[field] = default
        except ValueError as error:
            if str(error) != message:
                other[field] = default
    at_fault = content or other
    if len(at_fault) == 1:
        ((field, default),) = at_fault.items()
        refused = f"is {shown(given[field])}, which is refused ({message})"
        return Mistake(f"{path}.{field}", f"{refused}; allowed: such as {shown(default)}, the default")
    listed = ", ".join(f"{path}.{name}={shown(value)}" for name, value in given.items())
    return Mistake(path, f"{message}; it is about one of these, or several: {listed}" if listed else message)


def mistakes_of(cfg: DictConfig, path: str, error: UserError) -> list[Mistake]:
    """The mistakes that the component at `path` reports, with the paths of the values that cause them."""
    if isinstance(error, ConfigError):
        return error.mistakes
    if not isinstance(error, OptionError):
        return [Mistake(path, str(error))]
    node = OmegaConf.select(cfg, path)
    return [
        Mistake(f"{path}.{field}", text)
        if field in node
        else Mistake(field, text)
        if field.partition(".")[0] in cfg
        else Mistake(path, f"{field} {text}")
        for field, text in error.found
    ]


def contradicted(cfg: DictConfig, path: str, source: str, found: Mapping[str, Any]) -> list[Mistake]:
    """The mistakes of fields that say otherwise than what was found out, and is written into them where they are null.

    Args:
        cfg: the config.
        path: of the node whose fields they are.
        source: where it was found, such as "codec.run=outputs/autoencoder".
        found: the values by the fields' names.
    """
    node = OmegaConf.select(cfg, path)
    return [
        Mistake(f"{path}.{name}", f"is {node[name]}, but {source} has {value}; leave it out")
        for name, value in found.items()
        if node.get(name) not in (None, value)
    ]
