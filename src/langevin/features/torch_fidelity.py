"""The networks of torch-fidelity."""

import hashlib
import textwrap
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from langevin.errors import UserError
from langevin.features.extractor import FeatureExtractor
from langevin.features.weights import Published, find_weights, read_file

RESIZED = "RGB, bilinear as TensorFlow 1 does (corners at the origin, no antialiasing) to {side} x {side}"
"""What all of them do first."""


class TorchFidelity(FeatureExtractor):
    """One of torch-fidelity's feature extractors, which take uint8 RGB images of any size.

    A subclass implements `load`, and sets `sha256`, `name` and `sizes` there.

    Attributes:
        outputs: torch-fidelity's name for each output of ours, in the order that its network gives them.
    """

    outputs: ClassVar[Mapping[str, str]]

    def __init__(self) -> None:
        super().__init__()
        self.network: nn.Module | None = None

    def prepare(self) -> None:
        """Load the network, see the base class."""
        if self.network is None:
            with torch.random.fork_rng(devices=[]):  # its initial weights must not move the run's random numbers
                self.network = self.load()

    @abstractmethod
    def load(self) -> nn.Module:
        """Find and load the weights.

        Raises:
            UserError: when there are no usable ones.
        """

    def extract(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the outputs of uint8 images (B, 3, H, W), see the base class."""
        assert self.network is not None, "prepare() comes first"
        return dict(zip(self.outputs, self.network(images), strict=True))


class FromFile(TorchFidelity):
    """One whose weights are one file.

    Args:
        weights: its path; None takes the published one from torch hub's cache, downloading it there first when it is
            absent.
    """

    kind: ClassVar[str]
    """What the file is, for messages."""
    otherwise: ClassVar[str]
    """What else can be done without it."""

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        self.weights = weights

    @property
    @abstractmethod
    def published(self) -> Published:
        """The file that None means."""

    @abstractmethod
    def build(self, data: bytes) -> nn.Module:
        """The network with the weights of a file, once `sha256` is set; it may raise anything when the file is bad."""

    def load(self) -> nn.Module:
        """Read the file, see `TorchFidelity`."""
        path = find_weights(self.weights, self.published, self.otherwise)
        option = f"features.weights={self.weights or f'null ({path})'}"
        data = read_file(path, option, f"the path of {self.kind}, or null for the published weights")
        self.sha256 = hashlib.sha256(data).hexdigest()
        try:
            return self.build(data)
        except UserError:
            raise
        except Exception as error:  # a foreign file can raise anything
            mend = "delete it, so that it is downloaded again" if self.weights is None else "give the path of one"
            raise UserError(f"{option}: is not {self.kind} ({textwrap.shorten(str(error), 120)}): {mend}") from error
