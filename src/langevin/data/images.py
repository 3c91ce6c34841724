"""Samples on their way into a cache: where they come from, and the one transform which they all pass."""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from langevin.data.archive import Archive
from langevin.errors import UserError
from langevin.visible import visible

Box = tuple[int, int, int, int]
Color = tuple[int, int, int]

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
"""The formats that are read, by their names in Pillow, and the ends of their files' names."""
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MAX_PIXELS = 89_478_485
"""The largest image that is decoded, as many pixels as Pillow considers safe: a few kB can decode to gigabytes."""
WHITE: Color = (255, 255, 255)


class DecodedBlock(NamedTuple):
    """Some samples, decoded.

    Attributes:
        array: (B, *size, C); zeros where a sample is broken.
        small: those that were enlarged.
        broken: why a sample cannot be decoded, by its index.
    """

    array: NDArray[Any]
    small: list[int]
    broken: dict[int, Exception]


class LazySamples(ABC):
    """A sequence of samples, opened one at a time from any thread.

    Attributes:
        threads: by how many threads at most.
        doing: what is done to them, for a progress bar.
    """

    threads: ClassVar[int] = 16
    doing: ClassVar[str] = "decoding"

    @abstractmethod
    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call a sample in an error message."""
        return f"sample {index}"

    @abstractmethod
    def open(self, index: int) -> Any:
        """What a `Transform` takes; raises what the decoder raises when the sample is broken."""

    def block(self, indices: Sequence[int], transform: "Transform") -> DecodedBlock:
        """Decode some samples.

        Raises:
            UserError: which `open` raises when it cannot give this sample nor others, such as those of a damaged file.
        """
        block = DecodedBlock(np.zeros((len(indices), *transform.shape), transform.dtype), [], {})
        for place, index in enumerate(indices):
            try:
                sample = self.open(index)
                block.array[place] = transform(sample)
                if transform.enlarges(sample):
                    block.small.append(index)
            except UserError:
                raise
            except Exception as error:  # a broken file makes decoders raise anything: OSError, SyntaxError, ...
                block.broken[index] = error
        return block


@dataclass(frozen=True)
class ArrayRows(LazySamples):
    """Samples that lie in memory.

    Attributes:
        array: (N, *size, C).
    """

    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.array)

    def open(self, index: int) -> NDArray[Any]:  # noqa: D102
        return self.array[index]


class LazyImages(LazySamples):
    """A sequence of PIL images, opened one at a time from any thread."""

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """Decode one image; raises what the decoder raises when the image is broken."""

    def size(self, index: int) -> tuple[int, int]:
        """The width and height of one image, as Pillow gives them; raises the same."""
        return self.open(index).size


@dataclass(frozen=True)
class ArrayImages(LazyImages):
    """Images that lie decoded in memory.

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
class ImageFiles(LazyImages):
    """Images that are files of an archive; of several frames the first is read.

    Attributes:
        archive: where the files lie.
        files: their names in the order of the data set.
        boxes: optionally, for each file, the (left, top, right, bottom) to crop it to.
        background: the red, green and blue, 0 to 255, behind transparent pixels.
    """

    archive: Archive
    files: Sequence[str]
    boxes: Sequence[Box] | None = None
    background: Color = WHITE

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:  # noqa: D102
        return f"{visible(self.files[index])} in {self.archive.path}"

    def open(self, index: int) -> Image.Image:  # noqa: D102
        file = io.BytesIO(self.archive.read(self.files[index]))
        return decoded(file, self.background, None if self.boxes is None else self.boxes[index])

    def size(self, index: int) -> tuple[int, int]:  # noqa: D102
        if self.boxes is not None:
            return super().size(index)
        return stored_size(io.BytesIO(self.archive.read(self.files[index])))


def decoded(file: BinaryIO, background: Color, box: Box | None = None) -> Image.Image:
    """Decode an image file; of several frames the first.

    Args:
        file: in one of `FORMATS`.
        background: the red, green and blue, 0 to 255, behind transparent pixels.
        box: the (left, top, right, bottom) to crop it to, which is relative to its pixels as they are stored; None
            leaves it whole, and rotates it as its EXIF data say.

    Raises:
        ValueError: when it is no such file or too large, or its box lies outside; else what the decoder raises.
    """
    image = _opened(file)
    _scale_transparency(image)
    if box is not None:
        image = _crop(image, box)
    else:
        # A camera stores a portrait rotated and records that in its EXIF data.
        ImageOps.exif_transpose(image, in_place=True)
    return _composited(image, background)


def stored_size(file: BinaryIO) -> tuple[int, int]:
    """The width and height of what `decoded` makes of an image file, by its header but for PNG; raises the same."""
    image = _opened(file)
    turned = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)  # the stored rows are columns
    tags = getattr(image, "tag_v2", None)  # of a TIFF, whose size recent versions of Pillow give as after rotation
    stored = image.size if tags is None else (tags[ExifTags.Base.ImageWidth], tags[ExifTags.Base.ImageLength])
    return (stored[1], stored[0]) if turned else (stored[0], stored[1])


def _opened(file: BinaryIO) -> Image.Image:
    try:
        image: Image.Image = Image.open(file, formats=tuple(FORMATS))
    except UnidentifiedImageError as error:
        raise ValueError(f"it is damaged, or no {', '.join(FORMATS)} image") from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width}x{image.height} pixels; allowed: at most {MAX_PIXELS:,}")
    return image


class Transform(Protocol):
    """Makes an array of one shape and type of any sample. Its ``repr`` is part of the cache's fingerprint."""

    @property
    def dtype(self) -> type[np.generic]:
        """Of every array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The (*size, C) of every array."""

    def __call__(self, sample: Any, /) -> NDArray[Any]:
        """Turn a sample into an array, or raise ValueError with the reason."""

    def enlarges(self, sample: Any, /) -> bool:
        """Whether the array has more pixels along a side than the sample gives it."""


@dataclass(frozen=True)
class AsStored:
    """Real numbers as they are.

    Attributes:
        shape: (*size, C) of every sample.
    """

    shape: tuple[int, ...]
    dtype: ClassVar[type[np.generic]] = np.float32

    def __call__(self, sample: NDArray[Any]) -> NDArray[np.float32]:  # noqa: D102
        return sample.astype(np.float32)

    def enlarges(self, sample: NDArray[Any]) -> bool:  # noqa: D102
        return False


@dataclass(frozen=True)
class _ToSquare:
    """Makes an image a square of bytes.

    Attributes:
        size: side of the result in pixels.
        channels: 1 (grey) or 3 (RGB).
    """

    size: int
    channels: int
    dtype: ClassVar[type[np.generic]] = np.uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size, self.size, self.channels

    def enlarges(self, image: Image.Image) -> bool:
        return min(image.size) < self.size

    def _resized(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The image of another size, antialiased; one of this size keeps its pixels."""
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class SquareTransform(_ToSquare):
    """Centre crop to a square, then antialiased Lanczos resize; an image of the right size keeps its pixels."""

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        image = converted(image, self.channels)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        if image.size != (side, side):
            image = image.crop((left, top, left + side, top + side))
        return np.asarray(self._resized(image, self.size, self.size)).reshape(self.shape)


@dataclass(frozen=True)
class PadTransform(_ToSquare):
    """Lanczos resize of the whole image until its longer side fits, in the middle of a square of a colour.

    Attributes:
        background: the red, green and blue, 0 to 255, of the rest.
    """

    background: Color = WHITE

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        image = converted(image, self.channels)
        longer = max(image.size)
        image = self._resized(image, *(max(1, round(side * self.size / longer)) for side in image.size))
        canvas = Image.new("RGB", (self.size, self.size), self.background).convert(image.mode)
        canvas.paste(image, ((self.size - image.width) // 2, (self.size - image.height) // 2))
        return np.asarray(canvas).reshape(self.shape)

    def enlarges(self, image: Image.Image) -> bool:  # noqa: D102
        return max(image.size) < self.size


@dataclass(frozen=True)
class StretchTransform(_ToSquare):
    """Lanczos resize of the whole image to a square, whatever that does to its proportions."""

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        image = converted(image, self.channels)
        return np.asarray(self._resized(image, self.size, self.size)).reshape(self.shape)


@dataclass(frozen=True)
class NativeTransform:
    """Pixels as they are stored; every image must have one size.

    Attributes:
        shape: (H, W, C) of every image.
    """

    shape: tuple[int, int, int]
    dtype: ClassVar[type[np.generic]] = np.uint8

    @classmethod
    def like(cls, image: Image.Image) -> "NativeTransform":
        """The transform for images of the size and colours of `image`."""
        return cls((image.height, image.width, 1 if is_grey(image) else 3))

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        height, width, channels = self.shape
        if image.size != (width, height):
            raise ValueError(f"it is {image.width}x{image.height}, the first image is {width}x{height}")
        if channels == 1 and not is_grey(image):
            raise ValueError("it is in colour, the first image is grey")
        return np.asarray(converted(image, channels)).reshape(self.shape)

    def enlarges(self, image: Image.Image) -> bool:  # noqa: D102
        return False


def _crop(image: Image.Image, box: Box) -> Image.Image:
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)
    if left >= right or top >= bottom:
        raise ValueError(f"its box {box} lies outside of its {image.width}x{image.height} pixels")
    return image.crop((left, top, right, bottom))


def is_grey(image: Image.Image) -> bool:
    """Whether the image is stored without colour."""
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16")


def _scale_transparency(image: Image.Image) -> None:
    """Bring the one transparent level or colour of a PNG to the range of the pixels that Pillow makes of it.

    Pillow leaves it as stored where a level has 2, 4 or 3 x 16 bits.
    """
    value = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    stored = tiles[0][3] if tiles else None
    if isinstance(value, int) and stored in ("L;2", "L;4"):
        image.info["transparency"] = value * {"L;2": 85, "L;4": 17}[stored]
    elif isinstance(value, tuple) and stored == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in value)


def _composited(image: Image.Image, background: Color) -> Image.Image:
    """The image on a background; grey where both are, and unchanged where nothing is transparent."""
    if not image.has_transparency_data:
        return image
    grey = is_grey(image) and len(set(background)) == 1
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        opaque = np.where(levels == image.info["transparency"], 0, 255)
        image = Image.fromarray(np.stack([levels >> 8, opaque], axis=-1).astype(np.uint8), "LA")
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.getchannel("R") if grey else canvas.convert("RGB")


def converted(image: Image.Image, channels: int) -> Image.Image:
    """An image as 8 bits of grey (1 channel) or RGB (3).

    Raises:
        ValueError: when the range of its pixels is not known.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of Pillow's mode {image.mode}, whose range is unknown: store 8 or 16 bits")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 in some versions: keep the upper byte, as libpng does.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L" if channels == 1 else "RGB")
