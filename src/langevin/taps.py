"""The hidden features of a network, by the modules that compute them."""

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from langevin.errors import UserError


class Tap(NamedTuple):
    """A place in a network whose features may be looked at.

    Attributes:
        module: the module, called once in each call of the network, whose output they are: maps (B, C, h, w), or (B, N,
            C) of the N patches of a square image, row by row.
        channels: C.
    """

    module: nn.Module
    channels: int


def taps_of(network: nn.Module) -> Mapping[str, Tap]:
    """The taps of a network, see `Network.taps`; none of one that is no `Network`."""
    taps: Mapping[str, Tap] = getattr(network, "taps", {})
    return taps


@contextmanager
def tapped(network: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Look at features of a network for as long as the context lasts; nothing stays in the network.

    Args:
        network: the network.
        names: of its taps.

    Yields:
        what a call of the network fills: the features by their names, as maps (B, C, h, w), with their gradients.
    """
    taps, found = taps_of(network), dict[str, Tensor]()

    def look(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        found[name] = as_maps(output)

    with ExitStack() as hooks:
        for name in names:
            hooks.callback(taps[name].module.register_forward_hook(functools.partial(look, name)).remove)
        yield found


def as_maps(features: Tensor) -> Tensor:
    """Features (B, C, h, w) as they are; those of patches (B, N, C) as such maps, where N is a square."""
    if features.ndim == 4:
        return features
    side = math.isqrt(features.shape[1])
    return features.transpose(1, 2).unflatten(2, (side, side))


def require_seen(found: Mapping[str, Tensor], names: Collection[str]) -> None:
    """Check that a call has given all features that were asked for.

    Raises:
        UserError: when it has not, as can be where the compiler has made one program of the whole network.
    """
    if missing := [name for name in names if name not in found]:
        text = f"{missing[0]} of this network was not called as a module; allowed: another tap, or compile=false"
        raise UserError(f"auxiliaries: the tap {text}")


def numbered(name: str, blocks: Iterable[nn.Module], channels: Iterable[int]) -> dict[str, Tap]:
    """Taps of the blocks of a list, from 1 on, such as "down_1"; with the channels of each."""
    return {f"{name}_{index}": Tap(*pair) for index, pair in enumerate(zip(blocks, channels, strict=True), 1)}
