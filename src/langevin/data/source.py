"""What a data set is to the rest of the data room."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from langevin.data.images import Color, LazyImages, LazySamples, SquareTransform, Transform
from langevin.errors import OptionError, UserError
from langevin.modalities.image import ImageModality
from langevin.modalities.modality import Modality
from langevin.spec import DataSpec

_SHOWN = 20  # broken images that an error names


@dataclass(frozen=True)
class SampleSet:
    """One split of a source, ready to be decoded.

    Attributes:
        lazy: the N samples, each decoded when it is opened.
        labels: (N,) int64 in [0, len(class_names)), or None when the samples are unlabelled.
        class_names: a name for each class, or None when the samples are unlabelled.
        skip_broken: whether images that cannot be decoded are left out; None where the user has no such option.
        columns: what else is known of each sample, by names: arrays of numbers (N, ...), for conditions that read them.
        captions: of each sample, at least one each; None when the samples have none.
        is_part: whether this is a part of a split, others of which may have what is missing here.
    """

    lazy: LazySamples
    labels: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None
    skip_broken: bool | None = None
    columns: Mapping[str, NDArray] = field(default_factory=dict)
    captions: Sequence[Sequence[str]] | None = None
    is_part: bool = False


class Hints(NamedTuple):
    """The hints that come with the samples of a split.

    Attributes:
        fingerprint: a text that changes whenever they or the samples do.
        transform: what each passes on its way into the cache.
        load: lists those of all samples that `Source.load` lists, in their order; called only when there is no cache.
    """

    fingerprint: str
    transform: Transform
    load: Callable[[], LazyImages]


class BrokenImagesError(UserError):
    """Images cannot be decoded, and are not to be left out; none of them because of the disk or the memory.

    Attributes:
        broken: why, by the image's index.
    """

    def __init__(self, text: str, broken: Mapping[int, Exception]) -> None:
        self.broken = broken
        super().__init__(text)

    def __reduce__(self) -> tuple[type["BrokenImagesError"], tuple[str, Mapping[int, Exception]]]:
        return type(self), (str(self), self.broken)


def usable(images: SampleSet, broken: Mapping[int, Exception]) -> NDArray[np.int64]:
    """The indices of the images that remain when those which cannot be decoded are left out.

    Args:
        images: all of them.
        broken: why an image cannot be decoded, by its index.

    Raises:
        BrokenImagesError: naming the broken ones, when they are not to be left out.
        UserError: likewise, when the disk or the memory failed, and not an image; when no image, or none of some class,
            remains of what is no part.
    """
    # An error with an errno is the system's: it may not recur, and then the data would differ.
    at_fault = {
        index: error
        for index, error in broken.items()
        if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None
    }
    if at_fault:
        raise UserError(_listed(images, at_fault if images.skip_broken else broken))
    if not images.skip_broken:
        raise BrokenImagesError(_listed(images, broken), broken)
    kept = np.setdiff1d(np.arange(len(images.lazy)), list(broken))
    if images.is_part:
        return kept
    if not len(kept):
        raise UserError(_listed(images, broken))
    if images.labels is not None and images.class_names is not None:
        gone = set(images.labels.tolist()).difference(images.labels[kept].tolist())
        if gone:
            raise UserError(f"no image of class {images.class_names[min(gone)]} can be used; {_listed(images, broken)}")
    return kept


def _listed(images: SampleSet, broken: Mapping[int, Exception]) -> str:
    lines = [f"{images.lazy.name(index)} cannot be used: {broken[index]}" for index in sorted(broken)]
    offer = (
        "" if images.skip_broken is not False else ", or leave out what cannot be decoded with data.skip_broken=true"
    )
    if len(lines) == 1:
        return f"{lines[0]}; replace or remove it{offer}"
    more = [f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
    head = f"{len(lines):,} of {len(images.lazy):,} images cannot be used; replace or remove them{offer}:"
    return "\n  ".join([head, *lines[:_SHOWN], *more])


class Source(ABC):
    """A data set: one subclass a file, chosen by the Hydra group ``data``.

    A constructor does not access the disk: `check` finds everything that can fail.

    Attributes:
        columns: what it may supply of each sample beside the sample; "caption" where it has captions of its own,
            "hint" where hints can come with them.
        modality: what its samples are.
        flip: whether training mirrors each sample left to right with probability 1/2.
    """

    columns: frozenset[str] = frozenset({"label"})
    modality: Modality
    flip: bool = False

    @property
    def name(self) -> str:
        """What the source's caches are called."""
        return type(self).__name__.lower()

    @property
    @abstractmethod
    def transform(self) -> Transform:
        """What each sample passes on its way into the cache."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape (C, *size) of a sample x."""
        *size, channels = self.transform.shape
        return channels, *size

    def spec(
        self,
        num_classes: int | None = None,
        content: str | None = None,
        vocabulary: tuple[str, ...] | None = None,
    ) -> DataSpec:
        """What a model must know of the data; classes, content and the captions' words, as far as they are known."""
        modality = self.modality
        return DataSpec(
            self.shape, num_classes, modality.path(), modality.levels, content=content, vocabulary=vocabulary
        )

    @abstractmethod
    def check(self) -> None:
        """Look whether the samples are there, without decoding any.

        Raises:
            UserError: when the path is missing, holds no sample, or has the wrong layout.
        """

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits there are: ``("train",)`` or ``("train", "test")``."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """A text that changes whenever the split's samples or labels do; cheap, since every run computes it."""

    @abstractmethod
    def load(self, split: str) -> SampleSet:
        """List a split's samples and labels; called only when there is no cache of them.

        Raises:
            UserError: when the split's files are damaged or incomplete.
        """

    def hints_of(self, split: str) -> Hints | None:
        """The hints that come with a split's samples; None where none are to be read.

        Raises:
            UserError: by `Hints.load`, when a sample has none, or there is one of no sample.
        """
        return None

    def phrases(self, class_name: str) -> tuple[str, ...]:
        """What a caption may call a sample of a class: noun phrases without an article, the most usual one first."""
        return (class_name.replace("_", " "),)

    def left_out(self) -> Counter[str] | None:
        """How many of what lies beside the images and is not read, by what it is; None where no image file is read."""
        return None


class ImageSource(Source):
    """A data set of images.

    Args:
        image_size: side of the square images in pixels.
        channels: 1 (grey) or 3 (RGB).
        flip: see `Source`.

    Raises:
        UserError: when `image_size` or `channels` is out of range.
    """

    modality = ImageModality()

    def __init__(self, image_size: int, channels: int, flip: bool) -> None:
        if image_size < 1:
            raise OptionError("image_size", f"is {image_size}; allowed: at least 1")
        if channels not in (1, 3):
            raise OptionError("channels", f"is {channels}; allowed: 1 (grey) or 3 (RGB)")
        self.image_size = image_size
        self.channels = channels
        self.flip = flip

    @property
    def transform(self) -> Transform:
        """See `Source`."""
        return SquareTransform(self.image_size, self.channels)


class FileSource(ImageSource):
    """A source that reads image files.

    Args:
        image_size: see `ImageSource`, as are the next two.
        channels: 1 or 3.
        flip: whether to mirror in training.
        background: the colour behind transparent pixels: red, green and blue, 0 to 255.
        skip_broken: leave out the images that cannot be decoded, instead of refusing the data.

    Raises:
        UserError: when `background` is not a colour.
    """

    def __init__(
        self, image_size: int, channels: int, flip: bool, background: Sequence[int], skip_broken: bool
    ) -> None:
        super().__init__(image_size=image_size, channels=channels, flip=flip)
        if len(background) != 3 or not all(0 <= level <= 255 for level in background):
            text = f"is {list(background)}; allowed: three whole numbers from 0 to 255 (red, green, blue)"
            raise OptionError("background", text)
        self.background = cast("Color", tuple(background))
        self.skip_broken = skip_broken

    def _decoding(self) -> str:
        """The options that affect the decoded images, for the fingerprint."""
        return f"background={self.background}" + " skip_broken" * self.skip_broken
