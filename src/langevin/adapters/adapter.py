"""The interface of every adapter."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

WRAPPED = ".base_layer."
"""What stands in the names of a layer's own weights once an adapter is around it, as peft calls it."""


class Adapter(ABC):
    """Few trainable weights that change what a network computes, while its own are frozen.

    It starts as no change at all. A model is trained with them beside the network, and loaded with them merged into the
    network's own weights: so what samples, evaluates or converts a model knows nothing of adapters.
    """

    @abstractmethod
    def check(self, network: nn.Module) -> None:
        """Check that a network can be trained with it.

        Args:
            network: as it was built, be it without values.

        Raises:
            UserError: when it cannot, or a package is missing.
        """

    @abstractmethod
    def inject(self, network: nn.Module) -> None:
        """Freeze a network, put the trainable weights into it, and set its `Network.adapter`.

        Args:
            network: changed in place.

        Raises:
            UserError: see `check`.
        """

    @abstractmethod
    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the network alone that computes what one with an adapter does.

        Args:
            weights: of a network with this adapter. They may be a stranger's: what does not fit together stays as it
                is, and then fits no network.
        """


def plain_name(name: str) -> str:
    """What a weight of a network with an adapter is called in the network alone."""
    return name.replace(WRAPPED, ".")
