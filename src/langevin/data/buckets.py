"""Images that keep their proportions: sizes of about as many pixels, and which of them each image gets."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from langevin.bars import progress_bar
from langevin.data.images import LazyImages, converted
from langevin.data.source import SampleSet
from langevin.errors import UserError
from langevin.images import SIZE
from langevin.interrupt import Interrupted, received

SIZES = "sizes.npy"
"""The file of the sizes of all images."""
_CHUNK = 1024  # images whose sizes are read between two looks at signals


class Size(NamedTuple):
    """Of an image.

    Attributes:
        height: in pixels.
        width: likewise.
    """

    height: int
    width: int


def bucket_sizes(side: int, multiple_of: int, longest: float) -> list[Size]:
    """The sizes of all buckets: the square of some side, and of each other height the widest with no more pixels.

    Args:
        side: of the square.
        multiple_of: divides every height and width of the others.
        longest: the longer side over the shorter is at most this.
    """
    found = {Size(side, side)}
    for height in range(multiple_of, side + 1, multiple_of):
        width = side * side // height // multiple_of * multiple_of
        if height < width <= longest * height:
            found |= {Size(height, width), Size(width, height)}
    return sorted(found)


def assigned(sizes: NDArray[np.int32], buckets: Sequence[Size]) -> NDArray[np.int64]:
    """The bucket of each image: that of the nearest proportions, by the logarithm; of two the first.

    Args:
        sizes: (N, 2), heights and widths; zeros of an image that cannot be read, which goes to the most frequent one.
        buckets: B of them.

    Returns:
        (N,) in [0, B).
    """
    known = (sizes > 0).all(1)
    ratios = np.log(np.where(known, sizes[:, 0], 1) / np.where(known, sizes[:, 1], 1))
    offered = np.log([size.height / size.width for size in buckets])
    nearest = np.abs(ratios[:, None] - offered).argmin(1)
    most = int(np.bincount(nearest[known], minlength=len(buckets)).argmax())
    return np.where(known, nearest, most)


@dataclass(frozen=True)
class RectangleTransform:
    """Centre crop to the proportions of a rectangle and antialiased Lanczos resize, in one.

    An image of the right size keeps its pixels.

    Attributes:
        size: of the result.
        channels: 1 (grey) or 3 (RGB).
    """

    size: Size
    channels: int
    dtype: ClassVar[type[np.generic]] = np.uint8

    @property
    def shape(self) -> tuple[int, int, int]:  # noqa: D102
        return *self.size, self.channels

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:  # noqa: D102
        image, (height, width) = converted(image, self.channels), self.size
        if image.size != (width, height):
            scale = self._scale(image)
            left, top = max(image.width - width / scale, 0) / 2, max(image.height - height / scale, 0) / 2
            box = (left, top, image.width - left, image.height - top)
            image = image.resize((width, height), Image.Resampling.LANCZOS, box)
        return np.asarray(image).reshape(self.shape)

    def enlarges(self, image: Image.Image) -> bool:  # noqa: D102
        return self._scale(image) > 1

    def _scale(self, image: Image.Image) -> float:
        return max(self.size.height / image.height, self.size.width / image.width)


def told(sizes: NDArray[np.int32], bucket: Size) -> NDArray[np.float32]:
    """What a network may be told of images of some sizes (N, 2) that are cropped to a bucket's: float32 (N, 6).

    Height and width before the crop, at most as stored: less than that of the result where it was enlarged; top and
    left of the crop; height and width of the result. So an image that had enough pixels is told like a sample, which
    was never resized. Source: SDXL (Podell et al. 2023, arXiv 2307.01952), section 2.2 and 2.3, where the first two are
    as stored.
    """
    original, result = sizes.astype(np.float64), np.array(bucket, np.float64)
    scale = (result / np.maximum(original, 1)).max(1, keepdims=True)
    crop = np.maximum(original * scale - result, 0) / 2
    before = original * np.minimum(scale, 1)
    return np.concatenate([before, crop, np.broadcast_to(result, original.shape)], 1).astype(np.float32)


@dataclass(frozen=True)
class SomeImages(LazyImages):
    """Some of the images of a sequence.

    Attributes:
        images: all of them.
        rows: which.
    """

    images: LazyImages
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:  # noqa: D102
        return self.images.name(int(self.rows[index]))

    def open(self, index: int) -> Image.Image:  # noqa: D102
        return self.images.open(int(self.rows[index]))


def part_of(whole: SampleSet, rows: NDArray[np.int64], told: NDArray[np.float32]) -> SampleSet:
    """Some images of a split, with what a network may be told of their sizes (R, 6) as the column `SIZE`."""
    assert isinstance(whole.lazy, LazyImages)
    return SampleSet(
        SomeImages(whole.lazy, rows),
        None if whole.labels is None else whole.labels[rows],
        whole.class_names,
        whole.skip_broken,
        {**{name: column[rows] for name, column in whole.columns.items()}, SIZE: told},
        None if whole.captions is None else [whole.captions[row] for row in rows.tolist()],
        is_part=True,
    )


def read_sizes(images: LazyImages, title: str) -> NDArray[np.int32]:
    """Heights and widths (N, 2) of images, mostly of their headers; zeros of those that cannot be read.

    Args:
        images: N of them.
        title: what a progress bar calls them.

    Raises:
        Interrupted: once a signal has come.
        OSError, MemoryError, UserError: when the disk or the memory failed, or a whole file, and not an image.
    """

    def size(index: int) -> tuple[int, int]:
        try:
            width, height = images.size(index)
        except Exception as error:  # a broken file makes decoders raise anything; it is reported when it is decoded
            if isinstance(error, UserError | MemoryError) or getattr(error, "errno", None) is not None:
                raise  # it may not recur, and then the image would be in another bucket
            return 0, 0
        return height, width

    sizes = np.zeros((len(images), 2), np.int32)
    with (
        ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), images.threads)) as executor,
        progress_bar(total=len(images), desc=f"reading the sizes of {title}", unit="image") as progress,
    ):
        for first in range(0, len(images), _CHUNK):
            rows = range(first, min(first + _CHUNK, len(images)))
            sizes[rows.start : rows.stop] = list(executor.map(size, rows))
            progress.update(len(rows))
            if received() is not None:
                raise Interrupted(f"by {received()} with the sizes of {rows.stop:,} of {len(images):,} images read")
    return sizes


def kept_sizes(folder: Path) -> NDArray[np.int32]:
    """What `read_sizes` gave, from a folder that keeps it.

    Raises:
        ValueError: when it is missing or damaged.
    """
    try:
        sizes = np.load(folder / SIZES)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{folder}: not complete ({error})") from error
    if sizes.ndim != 2 or sizes.shape[1] != 2 or sizes.dtype != np.int32:
        raise ValueError(f"{folder}: has other sizes than (N, 2)")
    return sizes
