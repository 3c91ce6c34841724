"""Training batches of images that keep their proportions, each of one size."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from numpy.typing import NDArray
from torch import Tensor

from langevin.data.bucket_stream import BucketStream
from langevin.data.buckets import (
    SIZES,
    RectangleTransform,
    Size,
    assigned,
    bucket_sizes,
    kept_sizes,
    part_of,
    read_sizes,
    told,
)
from langevin.data.cache import CachedSamples, open_or_build
from langevin.data.caption_writer import CaptionWriter
from langevin.data.captions import Captions
from langevin.data.images import LazyImages, SquareTransform
from langevin.data.latents import MomentsEncoder
from langevin.data.module import DataModule
from langevin.data.samples import OpenedSamples
from langevin.data.source import BrokenImagesError, ImageSource, SampleSet, Source, usable
from langevin.data.store import PROGRESS, folder_named, open_or_make
from langevin.data.stream import SampleStream
from langevin.errors import OptionError, UserError

_FORMAT = 2
_EARLIER = 1  # in which the sides of turned TIFFs were swapped once too often


class BucketSamples:
    """The images of all buckets, numbered in the order of the data; see `langevin.data.samples.OpenedSamples`.

    Args:
        parts: the cache of each bucket that has images.
        members: for each of them, the places in the data of the images that were put into it.
        squares: opens the same images as squares; called only when these are needed, such as by a metric; None in
            data-loading workers.

    Attributes:
        bucket: (N,) int64, the part that each image is in.
    """

    hints: OpenedSamples | None = None

    def __init__(
        self,
        parts: Sequence[CachedSamples],
        members: Sequence[NDArray[np.int64]],
        squares: Callable[[], CachedSamples] | None,
    ) -> None:
        self.parts = list(parts)
        self.squares = squares
        kept = [np.delete(rows, part.broken) for part, rows in zip(parts, members, strict=True)]
        order = np.argsort(np.concatenate(kept), kind="stable")  # of the places in part after part
        lengths = [len(part) for part in parts]
        self.bucket: NDArray[np.int64] = np.repeat(np.arange(len(parts)), lengths)[order]
        self._places = np.concatenate([np.arange(length) for length in lengths])[order]
        self.labels: NDArray[np.int64] = np.concatenate([part.labels for part in parts])[order]
        self.class_names: tuple[str, ...] | None = parts[0].class_names
        self.skipped: tuple[str, ...] = tuple(name for part in parts for name in part.skipped)
        numbers, names = zip(*(part.enlarged for part in parts), strict=True)
        self.enlarged: tuple[int, tuple[str, ...]] = (sum(numbers), tuple(name for each in names for name in each))
        captions = [part.captions for part in parts if part.captions is not None]
        self.captions = Captions.joined(captions).kept(order) if captions else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {
            "squares": None
        }  # data-loading workers have no use for them, and they cannot be pickled

    @property
    def samples(self) -> NDArray[Any]:
        """The images as squares (N, side, side, C): what metrics are measured with."""
        assert self.squares is not None, "in a worker process"
        return self.squares().samples

    @property
    def digest(self) -> str:
        """Of the parts' digests and of which image is in which: what the data is."""
        whole = hashlib.sha256("".join(part.digest for part in self.parts).encode())
        whole.update(np.asarray(self.bucket, "<i8").tobytes())
        return whole.hexdigest()

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Some images, all of one bucket; see `CachedSamples.batch`."""
        rows = np.asarray(indices, np.int64)
        buckets = self.bucket[rows]
        assert (buckets == buckets[:1]).all(), "images of several sizes"
        part = self.parts[int(buckets[0]) if len(rows) else 0]
        return {**part.batch(self._places[rows]), "index": torch.from_numpy(rows)}


class BucketDataModule(DataModule):
    """Trains on images of several proportions: each is cropped as little as can be, to the nearest of some sizes.

    The sizes, called buckets, have about as many pixels as the square of the data's `image_size`, which is one of them.
    All images of an optimizer step are of one bucket, see `BucketStream`. Held-out images, and those that metrics are
    measured with, are squares. Batches have the column "size", which `langevin.conditions.size.ImageSize` reads.

    Source: the buckets of NovelAI's Stable Diffusion (2022), and SDXL (Podell et al. 2023, arXiv 2307.01952), 2.3.

    Args:
        source: of images that are cropped, data.resize=crop where there is a choice.
        batch_size: see `DataModule`, as are all others.
        multiple_of: divides the sides of all buckets but the square; at least 1.
        longest: the longer side of a bucket is at most so many times the shorter one; at least 1.
        accumulate: micro-batches of an optimizer step.
        num_workers: worker processes that gather batches.
        cache_dir: where the decoded images are kept.
        seed: chooses the order of the images and their mirroring.
        first: refused: the first images of the data may be of any buckets.
        captions: refused: they are written of images of one size.
    """

    varies_size: ClassVar[bool] = True

    def __init__(
        self,
        source: Source,
        batch_size: int,
        multiple_of: Annotated[int, Ge(1)] = 8,
        longest: Annotated[float, Ge(1)] = 2.0,
        accumulate: int = 1,
        num_workers: Annotated[int, Ge(0)] = 0,
        cache_dir: str | None = None,
        seed: int = 0,
        first: int | None = None,
        captions: CaptionWriter | None = None,
    ) -> None:
        super().__init__(source, batch_size, accumulate, num_workers, cache_dir, seed, first, captions)
        if multiple_of < 1:
            raise OptionError("multiple_of", f"is {multiple_of}; allowed: at least 1")
        if longest < 1:
            raise OptionError("longest", f"is {longest}; allowed: at least 1")
        if captions is not None:
            raise OptionError("captions", "are written of images of one size; allowed with loader=buckets: none")
        self.multiple_of = multiple_of
        self.longest = longest

    def prepare_data(self) -> None:
        """Open the caches, building them if necessary; see `DataModule`.

        Raises:
            UserError: when the data are no images, or not cropped; else as `DataModule`.
        """
        source = self.source
        if not isinstance(source, ImageSource):
            raise UserError(f"loader=buckets: is for images, and {source.name} has none; take loader=default")
        if not isinstance(source.transform, SquareTransform):
            raise UserError("loader=buckets: crops images; allowed: data.resize=crop, or loader=default")
        if self.first is not None:
            raise UserError(
                f"overfit_samples={self.first}: the first samples may be of any bucket; take loader=default"
            )
        super().prepare_data()

    def encode(self, encoder: MomentsEncoder) -> CachedSamples:
        """Latents of several sizes are not kept.

        Raises:
            UserError: always.
        """
        raise UserError("codec: keeps latents of one size; allowed with loader=buckets: identity")

    def _open(self, split: str) -> OpenedSamples:
        source = self.source
        if split != "train":
            return super()._open(split)
        assert isinstance(source, ImageSource)
        if source.hints_of(split) is not None:
            raise UserError("conditions.hint: kind=pairs reads hints of one size; allowed with loader=buckets: others")
        loaded = functools.cache(lambda: source.load(split))
        meaning = repr((split, source.fingerprint(split)))
        name = f"{source.name}-{split}"
        sizes = _sizes_of(folder_named(self.cache_dir, f"{name}-sizes", (_FORMAT, meaning)), loaded, name)
        buckets = bucket_sizes(source.image_size, self.multiple_of, self.longest)
        chosen = assigned(sizes, buckets)
        earlier = folder_named(self.cache_dir, f"{name}-sizes", (_EARLIER, meaning))
        same = _unchanged(earlier, sizes, chosen, buckets)
        decided = f" {hashlib.sha256(np.asarray(sizes, '<i4').tobytes()).hexdigest()}"
        parts, members, broken = list[CachedSamples](), list[NDArray[np.int64]](), dict[int, Exception]()
        for number, bucket in enumerate(buckets):
            rows = np.flatnonzero(chosen == number)
            if not len(rows):
                continue
            part = functools.partial(_part, loaded, rows, told(sizes[rows], bucket))
            transform = RectangleTransform(bucket, source.channels)
            called = f"{name}-{bucket.height}x{bucket.width}"
            key = f"{meaning} {buckets}{'' if number in same else decided}"
            try:
                parts.append(open_or_build(self.cache_dir, called, key, transform, part))
                members.append(rows)
            except BrokenImagesError as error:
                broken |= {int(rows[index]): why for index, why in error.broken.items()}
        if broken:
            usable(loaded(), broken)  # which names those of all buckets
        samples = BucketSamples(parts, members, functools.cache(functools.partial(self._squares, split)))
        if samples.skipped and len(np.unique(samples.labels)) < len(samples.class_names or (0,)):
            _require_usable(loaded(), parts, members)
        return samples

    def _squares(self, split: str) -> CachedSamples:
        samples = super()._open(split)
        assert isinstance(samples, CachedSamples)
        return samples

    def _stream(self, **options: Any) -> SampleStream:
        assert isinstance(self.train_set, BucketSamples)
        return BucketStream(self.train_set.bucket, **options)


def _part(loaded: Callable[[], SampleSet], rows: NDArray[np.int64], sizes: NDArray[np.float32]) -> SampleSet:
    return part_of(loaded(), rows, sizes)


def _require_usable(whole: SampleSet, parts: Sequence[CachedSamples], members: Sequence[NDArray[np.int64]]) -> None:
    """Refuse data of which no image, or none of some class, can be decoded; of a part that is no mistake."""
    rows = np.concatenate([of[list(part.broken)] for part, of in zip(parts, members, strict=True)])
    usable(whole, dict.fromkeys(rows.tolist(), ValueError("it cannot be decoded")))


def _unchanged(folder: Path, sizes: NDArray[np.int32], chosen: NDArray[np.int64], buckets: Sequence[Size]) -> set[int]:
    """The buckets that have the images, of the sizes, that they had by what an earlier version has read of the sizes.

    Their caches keep the names that they had there, so that they are not decoded again.
    """
    try:
        earlier = kept_sizes(folder)
    except ValueError:
        return set()
    if earlier.shape != sizes.shape:
        return set()
    before = assigned(earlier, buckets)
    changed = (before != chosen) | (earlier != sizes).any(1)
    return set(range(len(buckets))).difference(before[changed].tolist(), chosen[changed].tolist())


def _sizes_of(folder: Path, loaded: Callable[[], SampleSet], title: str) -> NDArray[np.int32]:
    """The sizes of all images, kept in a folder of the cache."""

    def prepare() -> Callable[[Path], None]:
        images = loaded().lazy
        assert isinstance(images, LazyImages)

        def fill(building: Path) -> None:
            (building / PROGRESS).touch()
            np.save(building / SIZES, read_sizes(images, title), allow_pickle=False)

        return fill

    return open_or_make(folder, kept_sizes, prepare, "the sizes of the images", "reads the sizes")
