"""Modules without values, on torch's device "meta": their shapes are known at once, and they take no memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _Uninitialized(TorchFunctionMode):
    """Leaves out the initialization of weights, which on "meta" is nothing, and yet imports torch's compiler (2 s)."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__module__", None) == nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@contextmanager
def without_values() -> Iterator[None]:
    """Build modules on "meta", to check their shapes."""
    with torch.device("meta"), _Uninitialized():
        yield
