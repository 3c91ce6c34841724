"""What a reader of another library's model finds out."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor


class Imported(NamedTuple):
    """A model of another library in our terms.

    Attributes:
        overrides: the choices of the training config that describe it, such as ["model=unet", "model.channels=128",
            "parameterization=eps"]. A schedule or parameterization that is not among them is the user's to choose.
        channels: of an image.
        image_size: the side of an image in pixels.
        num_classes: how many classes it is conditioned on; None when it is unconditional.
        weights: given the parameters of the composed config's model, without its `_target_`, the state dict of our
            network.
        origin: plain values that came with it and that our config has no place for, such as its `scaling_factor`.
    """

    overrides: list[str]
    channels: int
    image_size: int
    num_classes: int | None
    weights: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    origin: Mapping[str, Any] = MappingProxyType({})
