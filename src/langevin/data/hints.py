"""Hints that come with images: a file beside each, decoded into a cache of their own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from langevin.data.archive import Archive
from langevin.data.cache import CachedSamples, open_or_build
from langevin.data.images import SUFFIXES, Color, ImageFiles, LazyImages
from langevin.data.source import Hints, SampleSet
from langevin.errors import UserError
from langevin.visible import visible

MARK = ".control"
"""What the name of a hint has before its suffix: a.control.png is the hint of a.jpg beside it."""
UNREAD = f"unread {MARK} file"
"""What hints are called where no condition reads them."""
_SHOWN = 5


def told_apart(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The images among some files, and the hints, both in their order."""
    images, hints = list[str](), list[str]()
    for name in names:
        if (lower := name.lower()).endswith(SUFFIXES):
            (hints if MARK in lower and stem_of(lower).endswith(MARK) else images).append(name)
    return tuple(images), tuple(hints)


def stem_of(name: str) -> str:
    """A name without its suffix."""
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name


def image_of(hint: str) -> str:
    """The name without its suffix of the image that a hint is of."""
    return stem_of(hint)[: -len(MARK)]


@dataclass(frozen=True)
class HintFiles(LazyImages):
    """Hints that are files of an archive, each of the size of its image.

    Attributes:
        hints: the files.
        images: the images of which they are, in the same order.
    """

    hints: ImageFiles
    images: ImageFiles

    @classmethod
    def pair(
        cls,
        archive: Archive,
        where: str,
        images: Sequence[str],
        hints: Sequence[str],
        used: Sequence[str],
        background: Color,
    ) -> "HintFiles":
        """The hints of some images.

        Args:
            archive: where the files lie.
            where: what to call the archive in messages.
            images: all images of it.
            hints: all hints of it.
            used: the images in question.
            background: the colour behind transparent pixels.

        Raises:
            UserError: when one of them has no hint, an image has two, or a hint is of no image.
        """
        if not hints:
            raise UserError(
                f"{where}: conditions.hint.kind=pairs reads a hint beside each image, such as a{MARK}.png beside a.png "
                "and of its size, and there is none; add them, or take conditions.hint.kind=edges"
            )
        of_stem: dict[str, str] = {}
        for name in hints:
            if (other := of_stem.setdefault(image_of(name), name)) != name:
                raise UserError(f"{where}: {visible(other)} and {visible(name)} are hints of one image; remove one")
        stems = set(map(stem_of, images))
        if stray := [name for stem, name in of_stem.items() if stem not in stems]:
            raise UserError(
                f"{where}: {len(stray):,} of {len(hints):,} hints {_are(stray)} of no image ({_named(stray)}); "
                "add the images, or remove these"
            )
        if missing := [name for name in used if stem_of(name) not in of_stem]:
            raise UserError(
                f"{where}: {len(missing):,} of {len(used):,} images have no hint ({_named(missing)}); "
                f"conditions.hint.kind=pairs reads one beside each, such as {visible(stem_of(missing[0]))}{MARK}.png; "
                "add them, or remove these images"
            )
        files = [of_stem[stem_of(name)] for name in used]
        return cls(ImageFiles(archive, files, background=background), ImageFiles(archive, used, background=background))

    def __len__(self) -> int:
        return len(self.hints)

    def name(self, index: int) -> str:  # noqa: D102
        return self.hints.name(index)

    def open(self, index: int) -> Image.Image:
        """One hint; raises ValueError when it is not of its image's size."""
        hint, image = self.hints.open(index), self.images.open(index)
        if hint.size != image.size:
            sizes = ["x".join(map(str, each.size)) for each in (hint, image)]
            raise ValueError(f"it is {sizes[0]}, its image {visible(self.images.files[index])} is {sizes[1]}")
        return hint


@dataclass(frozen=True)
class _Kept(LazyImages):
    """Some of a sequence of images."""

    images: LazyImages
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        return self.images.name(self.places[index])

    def open(self, index: int) -> Image.Image:
        return self.images.open(self.places[index])


def with_hints(cache_dir: Path, name: str, hints: Hints, samples: CachedSamples) -> CachedSamples:
    """Samples with the hints that come with them, which are decoded first if there is no cache of them.

    They are decoded, resumed and kept as samples are, see `langevin.data.cache.open_or_build`, beside the cache of the
    samples, which runs without hints share.

    Args:
        cache_dir: the folder of all caches.
        name: what the cache is called, for people.
        hints: of the samples.
        samples: the decoded samples.

    Raises:
        UserError: when a sample has no hint, there is one of no sample, or one cannot be decoded or is of another size.
        Interrupted: once a signal has come.
    """

    def load() -> SampleSet:
        lazy, broken = hints.load(), set(samples.broken)
        kept = [place for place in range(len(lazy)) if place not in broken]
        return SampleSet(_Kept(lazy, kept) if broken else lazy)

    fingerprint = repr(("hints", hints.fingerprint, samples.broken))
    found = open_or_build(cache_dir, name, fingerprint, hints.transform, load)
    if len(found) != len(samples):
        raise UserError(
            f"loader.cache_dir: {samples.folder} is of an earlier version, which did not note which images cannot be "
            f"decoded, so that {len(found):,} hints are not those of its {len(samples):,} images; remove that folder"
        )
    return samples.with_hints(found)


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(visible, names[:_SHOWN])) + ", ..." * (len(names) > _SHOWN)
