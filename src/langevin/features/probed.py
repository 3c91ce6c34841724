"""What a user's own network must be, and finding out whether it is."""

import itertools
import math
import textwrap
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor

PROBE = (3, 64, 64)
"""The shape of the images that a network is tried with, before those that are to be measured are known."""
OUTPUTS = ("features", "logits")
"""What a network may give."""


class Probed(FeatureExtractor):
    """A network of the user's own: uint8 images (B, 3, H, W) of any height and width in, floating point out.

    It does all its preprocessing itself, resizing included. It gives ``features`` (B, D), or a mapping with these and,
    if there are classes, ``logits`` (B, classes); what else there is in it is left out. It is put into evaluation mode,
    and tried with two images before it is used.

    A subclass implements `load` and calls the constructor with what names the network.

    Args:
        option: the option that names the network and its value, for messages.
    """

    def __init__(self, option: str) -> None:
        super().__init__()
        self.option = option
        self.network: Callable[..., Any] | None = None

    def prepare(self) -> None:
        """Load the network and try it, see the base class.

        Raises:
            UserError: when it cannot be loaded, or is not what a network must be.
        """
        if self.network is not None:
            return
        with torch.random.fork_rng(devices=[]):  # its initial weights must not move the run's random numbers
            network = self.load()
            if isinstance(network, nn.Module):
                network.eval()
            self.network = network
            try:
                self.sizes = self._try(PROBE)
            except UserError:
                self.network = None
                raise

    @abstractmethod
    def load(self) -> Callable[..., Any]:
        """Find the network, and set `sha256` and `name`.

        Raises:
            UserError: when there is none.
        """

    def call(self, network: Callable[..., Any], images: Tensor) -> Any:
        """Ask the network."""
        return network(images)

    def _outputs(self, images: Tensor) -> Mapping[str, Any]:
        assert self.network is not None, "prepare() comes first"
        outputs = self.call(self.network, images)
        return outputs if isinstance(outputs, Mapping) else {"features": outputs}

    def check(self, shape: tuple[int, int, int], option: str) -> None:
        """Try the network with images of this shape, see the base class."""
        super().check(shape, option)
        sizes = self._try((3, *shape[1:]))
        if sizes != self.sizes:
            raise UserError(
                f"{self.option}: gives {sizes} for the images of {option}, of height and width {shape[1:]}, but "
                f"{self.sizes} for {PROBE[1:]}; allowed: outputs whose width does not depend on the image's"
            )

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of uint8 images (B, 3, H, W), see the base class."""
        outputs = self._outputs(images)
        return {key: outputs[key].float() for key in OUTPUTS if key in outputs}

    def _try(self, shape: tuple[int, int, int]) -> dict[str, int]:
        """The width of each output for images of this shape.

        Raises:
            UserError: when the network fails on them, or what it gives is not what it should be.
        """
        weights = itertools.chain(self.parameters(), self.buffers())
        device = next((tensor.device for tensor in weights), None)
        levels = torch.linspace(0, 255, 2 * math.prod(shape), device=device).byte().reshape(2, *shape)
        given = f"{self.option}: given uint8 images {tuple(levels.shape)}, the network"
        try:
            with torch.no_grad():
                outputs = self._outputs(levels)
        except Exception as error:  # whatever its code raises
            reason = f"{type(error).__name__}: {textwrap.shorten(str(error), 200)}"
            raise UserError(f"{given} fails ({reason}); allowed: one that takes such images of any size") from error
        if "features" not in outputs:
            raise UserError(f"{given} gives {sorted(map(str, outputs))}; allowed: features, and logits if it has them")
        for key in OUTPUTS:
            if key in outputs and (wrong := _fault(outputs[key])):
                raise UserError(f"{given} gives as {key} {wrong}; allowed: finite floating point numbers (2, D)")
        return {key: outputs[key].shape[1] for key in OUTPUTS if key in outputs}


def _fault(output: Any) -> str | None:
    """What is wrong with the output for two images; None if nothing is."""
    if not isinstance(output, Tensor):
        return f"no tensor but a {type(output).__name__}"
    if output.ndim != 2 or len(output) != 2 or output.shape[1] == 0:
        return f"a tensor of shape {tuple(output.shape)}"
    if not output.is_floating_point():
        return f"numbers of type {output.dtype}"
    return None if output.isfinite().all() else "numbers that are not finite"
