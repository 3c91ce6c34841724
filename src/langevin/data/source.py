"""What a data set is to the rest of the data room."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langevin.data.pictures import Pictures
from langevin.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """One split of a source, ready to be decoded.

    Attributes:
        pictures: the N images.
        labels: (N,) int64 in [0, len(class_names)), or None when the images are unlabelled.
        class_names: a name for each class, or None when the images are unlabelled.
    """

    pictures: Pictures
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None


class ImageSource(ABC):
    """A data set: one subclass a file, chosen by the Hydra group ``data``.

    A constructor touches no disk: everything that can fail is found by `check`.

    Args:
        image_size: side of the square images in pixels.
        channels: 1 (grey) or 3 (RGB).
        flip: whether training mirrors each image left to right with probability 1/2.

    Raises:
        UserError: when `image_size` or `channels` is out of range.
    """

    def __init__(self, image_size: int, channels: int, flip: bool) -> None:
        if image_size < 1:
            raise UserError(f"data.image_size={image_size}: must be at least 1")
        if channels not in (1, 3):
            raise UserError(f"data.channels={channels}: must be 1 (grey) or 3 (RGB)")
        self.image_size = image_size
        self.channels = channels
        self.flip = flip

    @property
    def name(self) -> str:
        """What the source's caches are called."""
        return type(self).__name__.lower()

    @abstractmethod
    def check(self) -> None:
        """Look whether the images are there, without decoding any.

        Raises:
            UserError: when the path is missing, holds no image, or is not laid out as it must be.
        """

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits there are: ``("train",)`` or ``("train", "test")``."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """A text that changes whenever the split's images or labels do; cheap, since every run asks for it."""

    @abstractmethod
    def load(self, split: str) -> ImageSet:
        """List a split's images and labels; called only when there is no cache of them.

        Raises:
            UserError: when the split's files are damaged or incomplete.
        """
