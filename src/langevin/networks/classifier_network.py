"""The interface of every network that tells the class of a noisy image."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from langevin.networks.checked import Checked


class ClassifierNetwork(nn.Module, Checked, ABC):
    """A function of a noisy image and its noise level, with a score for every class.

    Like a `Network` it never sees a schedule. Its constructor takes, beside its own parameters, the facts of the
    dataset as keywords: `in_channels`, `num_classes` and `image_size`; its `check` takes `image_size` and its own
    parameters.
    """

    @abstractmethod
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, H, W), scaled to about unit variance by the caller.
            c_noise: (B,) floating point, the name of each sample's noise level.

        Returns:
            the classes' logits, (B, num_classes).
        """
