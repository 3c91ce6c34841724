"""The schema of a config node: the constructor it names, read from its source.

The source is read, not imported, wherever that is possible: importing Lightning alone takes longer than all the rest of
validation, and a mistake should be reported at once.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from langevin.config.migration import CLASSES

# Packages whose `__init__` is slow to run are imported only when there is no other way to a signature.
SLOW_PACKAGES = ("lightning", "torchmetrics", "torchvision")


@dataclass(frozen=True)
class Field:
    """A parameter of a constructor.

    Attributes:
        annotation: its type, as an expression; None where the source gives none.
        required: whether it has no default.
    """

    annotation: ast.expr | None
    required: bool


class TargetError(Exception):
    """A `_target_` that cannot be found or imported; its message gives the reason."""


@cache
def signature(target: str) -> dict[str, Field] | None:
    """The parameters of the class or function with the full path `target`; None where it takes any keyword.

    Raises:
        TargetError: when there is no such class or function, or importing its module fails, with the cause.
    """
    if target in CLASSES:
        raise TargetError(f"'{target}' is called {CLASSES[target]} now")
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise TargetError(f"'{target}' is not the full path of a class, such as langevin.samplers.ddim.DDIM")
    arguments = _arguments_in_source(module_name, name)
    if arguments is not None:
        return _fields(arguments)
    return _imported_fields(module_name, name)


def _arguments_in_source(module_name: str, name: str) -> ast.arguments | None:
    if module_name.split(".")[0] in SLOW_PACKAGES:
        return None
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError as error:
        raise TargetError(f"module '{error.name}' does not exist (in '{module_name}.{name}')") from error
    except Exception as error:
        raise TargetError(f"importing '{module_name}' failed: {type(error).__name__}: {error}") from error
    if spec is None:
        raise TargetError(f"module '{module_name}' does not exist")
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node.args
        if isinstance(node, ast.ClassDef) and node.name == name:
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                    return member.args
    return None  # imported from elsewhere, or its constructor is inherited


def _fields(arguments: ast.arguments) -> dict[str, Field] | None:
    if arguments.kwarg is not None:
        return None
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {a.arg: Field(a.annotation, default is None) for a, default in pairs if a.arg not in ("self", "cls")}


def _imported_fields(module_name: str, name: str) -> dict[str, Field] | None:
    try:
        found: Callable[..., Any] | None = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:
        raise TargetError(f"importing '{module_name}' failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise TargetError(f"module '{module_name}' has no class or function '{name}'")
    fields = {}
    for parameter in inspect.signature(found).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return None
        if parameter.kind is not parameter.VAR_POSITIONAL:
            fields[parameter.name] = Field(_expression(parameter.annotation), parameter.default is parameter.empty)
    return fields


def _expression(annotation: Any) -> ast.expr | None:
    if annotation is inspect.Parameter.empty:
        return None
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        return None
