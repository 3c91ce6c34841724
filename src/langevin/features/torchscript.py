"""A network in a TorchScript file."""

import hashlib
import io
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langevin.errors import UserError
from langevin.features.probed import Probed
from langevin.features.weights import read_file


class TorchScript(Probed):
    """A network that was saved by ``torch.jit.save``; see `Probed` for what it must be.

    A TorchScript file holds a program. It cannot be read as mere data, so take it only from a source you trust.

    Args:
        path: of the file.
        return_features: whether the network is called with ``return_features=True``, which NVIDIA's
            ``inception-2015-12-05.pt`` (StyleGAN2-ADA) needs to give its 2048 features instead of the classes'
            probabilities. With it these features are called so, but no figure on them is called fid: the weights are
            the same, the file is another.
    """

    preprocessing = "RGB, and what the TorchScript file does"

    def __init__(self, path: str, return_features: bool = False) -> None:
        super().__init__(f"features.path={path}")
        self.path = Path(path).expanduser()
        self.options = {"return_features": True} if return_features else {}
        self.name = f"torchscript_{self.path.stem}"

    def load(self) -> Callable[..., Any]:
        """Read the file, see `Probed`."""
        data = read_file(self.path, self.option, "the path of a TorchScript file")
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.name = f"torchscript_{self.path.stem}-{self.sha256[:8]}"
        try:
            with warnings.catch_warnings(action="ignore"):  # torch reports that TorchScript is deprecated
                return torch.jit.load(io.BytesIO(data), map_location="cpu")
        except Exception as error:  # a foreign file can raise anything
            cause = textwrap.shorten(str(error), 120)
            raise UserError(f"{self.option}: is not TorchScript ({cause}); give what torch.jit.save wrote") from error

    def call(self, network: Callable[..., Any], images: Tensor) -> Any:
        """Run the network, see `Probed`."""
        return network(images, **self.options)
