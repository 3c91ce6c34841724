"""Pictures on their way into a cache: where they come from, and the one transform which they all pass."""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from langevin.data.archive import Archive

Box = tuple[int, int, int, int]


class Pictures(ABC):
    """A sequence of PIL images, opened one at a time from any thread."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call an image in an error message."""

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """Decode one image; raises what the decoder raises when the image is broken."""


@dataclass(frozen=True)
class ArrayPictures(Pictures):
    """Pictures that lie decoded in memory.

    Attributes:
        array: uint8, (N, H, W) grey or (N, H, W, 3) colour.
    """

    array: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.array)

    def name(self, index: int) -> str:  # noqa: D102
        return f"image {index}"

    def open(self, index: int) -> Image.Image:  # noqa: D102
        return Image.fromarray(self.array[index])


@dataclass(frozen=True)
class FilePictures(Pictures):
    """Pictures that are files of an archive.

    Attributes:
        archive: where the files lie.
        files: their names in the order of the data set.
        boxes: optionally, for each file, the (left, top, right, bottom) to crop it to.
    """

    archive: Archive
    files: Sequence[str]
    boxes: Sequence[Box] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:  # noqa: D102
        return f"{self.files[index]} in {self.archive.path}"

    def open(self, index: int) -> Image.Image:  # noqa: D102
        image = Image.open(io.BytesIO(self.archive.read(self.files[index])))
        if self.boxes is not None:
            return _crop(image, self.boxes[index])
        # A camera stores a portrait lying down and says so in its EXIF data.
        ImageOps.exif_transpose(image, in_place=True)
        return image


class Transform(Protocol):
    """Makes a uint8 array of one shape of any picture. Its ``repr`` is part of the cache's fingerprint."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (H, W, C) of every array."""

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """Turn a picture into an array, or raise ValueError saying why it cannot be."""


@dataclass(frozen=True)
class SquareTransform:
    """Centre crop to a square, then antialiased Lanczos resize; a picture of the right size keeps its pixels.

    Attributes:
        size: side of the result in pixels.
        channels: 1 (grey) or 3 (RGB; transparency is dropped).
    """

    size: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:  # noqa: D102
        return self.size, self.size, self.channels

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        image = _convert(image, self.channels)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if image.size != (side, side):
            image = image.crop((left, top, left + side, top + side))
        if side != self.size:
            image = image.resize((self.size, self.size), Image.Resampling.LANCZOS)
        return np.asarray(image).reshape(self.shape)


@dataclass(frozen=True)
class NativeTransform:
    """Pixels as they are stored; every picture must have one size.

    Attributes:
        shape: (H, W, C) of every picture.
    """

    shape: tuple[int, int, int]

    @classmethod
    def like(cls, image: Image.Image) -> "NativeTransform":
        """The transform for pictures of the size and colours of `image`."""
        return cls((image.height, image.width, 1 if _is_grey(image) else 3))

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        height, width, channels = self.shape
        if image.size != (width, height):
            raise ValueError(f"it is {image.width}x{image.height}, the first image is {width}x{height}")
        if channels == 1 and not _is_grey(image):
            raise ValueError("it is in colour, the first image is grey")
        return np.asarray(_convert(image, channels)).reshape(self.shape)


def _crop(image: Image.Image, box: Box) -> Image.Image:
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)
    if left >= right or top >= bottom:
        raise ValueError(f"its box {box} lies outside of its {image.width}x{image.height} pixels")
    return image.crop((left, top, right, bottom))


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of Pillow's mode {image.mode}, whose range is unknown: store 8 or 16 bits")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 in some versions: keep the upper byte, as libpng does.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")
