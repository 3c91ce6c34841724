"""Whether a config's value fits an annotation, and what the annotation allows, in words."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

NAMES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "None": "null",
    "Path": "a path",
}
CONSTRAINTS = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below"}
BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "at least": operator.ge,
    "above": operator.gt,
    "at most": operator.le,
    "below": operator.lt,
}
LISTS = ("list", "tuple", "Sequence", "Iterable")
PLAIN = (*NAMES, *LISTS, "NoneType", "Any", "object", "dict", "Mapping")
"""The types that YAML writes."""
TARGET = "_target_"


def path_of(cls: type) -> str:
    """The full path of a class, as a config names it."""
    return f"{cls.__module__}.{cls.__qualname__}"


def node_of(part: Any) -> dict[str, Any]:
    """A part, whose attributes are its parameters, as a config's node."""
    return {TARGET: path_of(type(part)), **vars(part)}


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain values, its interpolations resolved.

    Raises:
        OmegaConfBaseException: when an interpolation cannot be resolved.
    """
    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


def holds_components(value: Any) -> bool:
    """Whether a config's value is a mapping of named components, each with a `_target_`."""
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(part, Mapping) and TARGET in part for part in value.values())
    )


def takes_components(annotation: ast.expr | None) -> bool:
    """Whether an annotation names a class of ours, or a mapping or list of such: a slot for a component.

    What takes anything (no annotation, `Any`, a plain `dict`) does not count, or a component could be written anywhere.
    """
    match annotation:
        case ast.Constant(value=str(text)):
            return takes_components(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return takes_components(left) or takes_components(right)
        case ast.Subscript(value=generic, slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            match _name(generic):
                case "Literal" | "Annotated" | "tuple":
                    return False
                case "dict" | "Mapping":
                    return takes_components(items[-1])
                case "Union" | "Optional":
                    return any(takes_components(item) for item in items)
                case name if name in LISTS:
                    return takes_components(items[0])
                case _:
                    return True
        case ast.Name() | ast.Attribute():
            return _name(annotation) not in PLAIN
        case _:
            return False


def hides_component(value: Any) -> bool:
    """Whether a value is or holds, at any depth, a mapping that Hydra would build."""
    if isinstance(value, Mapping):
        return any(str(key).startswith("_") and str(key).endswith("_") for key in value) or any(
            hides_component(part) for part in value.values()
        )
    return isinstance(value, list) and any(hides_component(part) for part in value)


def fits(value: Any, annotation: ast.expr | None) -> bool:
    """Whether `value`, a plain value from YAML, fits `annotation`.

    A type that YAML cannot write (a class of ours, for example) is fitted by a mapping with a `_target_`: a component.
    """
    match annotation:
        case None:
            return True
        case ast.Constant(value=None):
            return value is None
        case ast.Constant(value=str(text)):
            return fits(value, ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return fits(value, left) or fits(value, right)
        case ast.Subscript(value=generic, slice=inner):
            return _fits_generic(value, _name(generic), inner.elts if isinstance(inner, ast.Tuple) else [inner])
        case _:
            return _fits_name(value, _name(annotation))


def _fits_generic(value: Any, generic: str, inner: list[ast.expr]) -> bool:
    match generic:
        case "Annotated":
            return fits(value, inner[0]) and all(_within(value, item) for item in inner[1:])
        case "Literal":
            return any(type(value) is type(item.value) and value == item.value for item in _constants(inner))
        case "Union":
            return any(fits(value, item) for item in inner)
        case "Optional":
            return value is None or fits(value, inner[0])
        case "tuple" if not (isinstance(inner[-1], ast.Constant) and inner[-1].value is Ellipsis):
            return (
                isinstance(value, list)
                and len(value) == len(inner)
                and all(fits(item, kind) for item, kind in zip(value, inner, strict=True))
            )
        case _ if generic in LISTS:
            return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
        case "dict" | "Mapping":
            return isinstance(value, Mapping) and all(fits(item, inner[-1]) for item in value.values())
        case _:
            return isinstance(value, Mapping) and TARGET in value


def _fits_name(value: Any, name: str) -> bool:
    match name:
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
        case "bool":
            return isinstance(value, bool)
        case "str" | "Path":
            return isinstance(value, str)
        case "None" | "NoneType":
            return value is None
        case "Any" | "object":
            return True
        case "dict" | "Mapping":
            return isinstance(value, Mapping)
        case _ if name in LISTS:
            return isinstance(value, list)
        case _:
            return isinstance(value, Mapping) and TARGET in value


def describe(annotation: ast.expr | None) -> str:
    """What an annotation allows, in words."""
    match annotation:
        case None:
            return "anything"
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=str(text)):
            return describe(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{describe(left)} or {describe(right)}"
        case ast.Subscript(value=generic, slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            match _name(generic):
                case "Annotated":
                    return describe(items[0]) + "".join(f", {_bound(item)[0]} {_bound(item)[1]}" for item in items[1:])
                case "Literal":
                    return "one of " + ", ".join(str(item.value) for item in _constants(items))
                case "Union":
                    return " or ".join(describe(item) for item in items)
                case "Optional":
                    return f"{describe(items[0])} or null"
                case "tuple" if not (isinstance(items[-1], ast.Constant) and items[-1].value is Ellipsis):
                    return "a list of " + ", ".join(describe(item) for item in items)
                case name if name in LISTS:
                    return f"a list, each item {describe(items[0])}"
                case "dict" | "Mapping":
                    return f"a mapping, each value {describe(items[-1])}"
                case name:
                    return f"a component ({name}) with a {TARGET}"
        case _:
            name = _name(annotation)
            return NAMES.get(name) or ("a list" if name in LISTS else f"a component ({name}) with a {TARGET}")


def _within(value: Any, constraint: ast.expr) -> bool:
    words, bound = _bound(constraint)
    return bool(BOUNDS[words](value, bound))


def _bound(constraint: ast.expr) -> tuple[str, float]:
    """A constraint of the package annotated_types, such as ``Ge(1)``, in words and as its number."""
    assert isinstance(constraint, ast.Call)
    (bound,) = [*constraint.args, *(keyword.value for keyword in constraint.keywords)]
    return CONSTRAINTS[_name(constraint.func)], ast.literal_eval(bound)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _constants(nodes: list[ast.expr]) -> list[ast.Constant]:
    return [node for node in nodes if isinstance(node, ast.Constant)]
