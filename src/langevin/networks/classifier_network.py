"""The interface of every network that classifies noisy images."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ClassifierNetwork(nn.Module, ABC):
    """A function of a noisy image and its noise level, with a score for every class.

    Like a `Network` it never sees a schedule. Its constructor takes, beside its own parameters, the spec of the
    dataset as keywords: `in_channels`, `num_classes` and `image_size`. It raises an `OptionError` that names
    everything incompatible, and is also built on the device "meta", to find that.
    """

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: (B, C, H, W), scaled to about unit variance by the caller.
            c_noise: (B,) floating point, which encodes each sample's noise level.

        Returns:
            the classes' logits, (B, num_classes).
        """
        return self.classify(self.features(x, c_noise))

    @abstractmethod
    def features(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """The input of the last layer: a vector (B, D), for the arguments of `forward`."""

    def levels(self, x: Tensor, c_noise: Tensor) -> list[Tensor]:
        """Activations (B, C, h, w) at several depths, of several sizes; unless overridden, the features alone."""
        return [self.features(x, c_noise)[:, :, None, None]]

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """The last, linear map: `features` (B, D) to logits (B, num_classes)."""
