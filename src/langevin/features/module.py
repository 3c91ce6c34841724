"""A network of the user's own Python."""

import hashlib
import importlib
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from langevin.digest import digest_of
from langevin.errors import OptionError, UserError
from langevin.features.probed import Probed
from langevin.features.weights import read_file


class Module(Probed):
    """What a function or class of the user's gives when called without arguments; see `Probed` for what it must be.

    It is named by the sha256 of its state if it is an `nn.Module` with weights, else by that of its source file.

    Args:
        target: where it is found: ``package.module:callable``.
    """

    preprocessing = "RGB, and what the module does"

    def __init__(self, target: str) -> None:
        super().__init__(f"features.target={target}")
        self.module, colon, self.callable = target.partition(":")
        if not (colon and self.module and self.callable.isidentifier()):
            raise OptionError("target", f"is {target}; allowed: of the form package.module:callable")
        self.name = f"module_{self.callable}"

    def load(self) -> Callable[..., Any]:
        """Import and call it, see `Probed`."""
        try:
            module = importlib.import_module(self.module)
        except Exception as error:  # importing a module can raise anything
            raise UserError(f"{self.option}: importing {self.module} failed ({_reason(error)})") from error
        make = getattr(module, self.callable, None)
        if not callable(make):
            raise UserError(f"{self.option}: {self.module} has no function or class {self.callable}")
        try:
            network = make()
        except Exception as error:  # whatever its code raises
            raise UserError(f"{self.option}: called without arguments, it fails ({_reason(error)})") from error
        if not callable(network):
            raise UserError(f"{self.option}: gives a {type(network).__name__}, which cannot be called with images")
        if isinstance(network, nn.Module) and network.state_dict():
            self.sha256 = digest_of(network)
        elif (file := getattr(module, "__file__", None)) is None:
            raise UserError(f"{self.option}: neither weights nor a source file name it; allowed: a module in a file")
        else:
            source = read_file(Path(file), self.option, "a module whose source file can be read")
            self.sha256 = hashlib.sha256(source).hexdigest()
        self.name = f"module_{self.callable}-{self.sha256[:8]}"
        return network


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 200)}"
