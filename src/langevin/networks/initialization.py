"""How weights start: DDPM's scheme (Ho et al. 2020; `default_init` in their published code)."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def fan_average(layer: Layer) -> Layer:
    """Fill a layer's weight uniformly with variance 2 / (fan in + fan out), its bias with 0, and return the layer."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero(layer: Layer) -> Layer:
    """Fill a layer with 0 and return it: the last layer of a residual branch, which then starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def orthogonal(layer: nn.Conv2d) -> nn.Conv2d:
    """Fill the weight of a 1x1 convolution of as many channels with a random rotation, its bias with 0; return it."""
    nn.init.orthogonal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
