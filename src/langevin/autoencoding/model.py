"""What a run of task=autoencoder trains."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from langevin.networks.autoencoders.autoencoder import Autoencoder, Reconstructed


class AutoencoderModel(nn.Module):
    """An autoencoder as a model that is trained, has EMA weights and is evaluated.

    Args:
        network: the autoencoder.
    """

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, noise: Callable[[], Tensor] | None = None) -> Reconstructed:
        """Reconstruct images, see `Autoencoder.forward`."""
        reconstructed: Reconstructed = self.network(x, noise)
        return reconstructed

    def with_network(self, network: Any) -> "AutoencoderModel":
        """The same model with another network, such as one with EMA weights."""
        return AutoencoderModel(network)
