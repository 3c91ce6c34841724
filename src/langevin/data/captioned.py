"""The user's own images with captions: a folder, a zip, a tar, or a folder of tar shards."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Le

from langevin.data.archive import Archive, Folder, Shards, file_kind, holding, open_archive
from langevin.data.caption_files import MAX_BYTES, captions_of_entry, captions_of_lines, entry_of
from langevin.data.hints import UNREAD, HintFiles, stem_of, told_apart
from langevin.data.image_folder import ImageFolder
from langevin.data.images import SUFFIXES, WHITE, Color, ImageFiles
from langevin.data.source import Hints, SampleSet
from langevin.errors import UserError
from langevin.images import HINT
from langevin.visible import visible

METADATA = "metadata.jsonl"
_MAX_METADATA_BYTES = 2**32
_FINDING = 2  # of the captions in shards: with 1, suffixes had to be in small letters
T = TypeVar("T")
R = TypeVar("R")
_SHOWN = 5  # images without captions that a message names


class CaptionedImages:
    """The images of an archive and their captions.

    A line of a ``metadata.jsonl`` gives the captions of an image: ``{"file_name": "a.jpg", "text": "a red car"}``, or a
    list of texts; the file's name is relative to the folder of that ``metadata.jsonl``. The captions of an image that
    none names are the lines of the ``.txt`` file beside it of the same name, else the "text" or "caption" of its
    ``.json`` file.

    Args:
        path: the folder, zip, plain tar, or folder of plain tars.
        option: the name of the option that gave `path`, for messages.
        reads_hints: whether the hints beside the images are read, see `langevin.data.hints`; else they are left out.

    Attributes:
        archive: what is opened.

    Raises:
        UserError: when there is nothing at `path`, or it cannot be opened.
    """

    def __init__(self, path: str, option: str, reads_hints: bool = False) -> None:
        self._reads_hints = reads_hints
        self._where = f"{option}={path}"
        self.archive = _sharded(open_archive(path, option))
        self.is_sharded = isinstance(self.archive, Shards)

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        """The images' names, in order.

        Raises:
            UserError: when there are none.
        """
        found, _ = told_apart(self.archive.names)
        if not found:
            raise UserError(
                f"{self._where}: holds no image (looked for {', '.join(SUFFIXES)} in it, its subfolders and its tars)"
                f"{holding(self.archive)}"
            )
        return found

    @functools.cached_property
    def hints(self) -> tuple[str, ...]:
        """The names of the hints, in order."""
        return told_apart(self.archive.names)[1]

    def hint_files(self, used: Sequence[str], background: Color) -> HintFiles:
        """The hint of each of some images.

        Raises:
            UserError: when one has none, or there is one of no image.
        """
        return HintFiles.pair(self.archive, self._where, self.files, self.hints, used, background)

    def hints_fingerprint(self) -> str:
        """Digest of the hints' content; shards are not indexed for it."""
        return self.archive.fingerprint(self._read_hints())

    @functools.cached_property
    def _metadata(self) -> tuple[str, ...]:
        return tuple(name for name in self.archive.names if PurePosixPath(name).name == METADATA)

    @functools.cached_property
    def _beside(self) -> dict[str, str]:
        """The files that may have the captions of an image, by their names with a suffix in small letters."""
        stems = {stem_of(name) for name in self.files}
        beside: dict[str, str] = {}
        for name in self.archive.names:
            if name.lower().endswith((".txt", ".json")) and (stem := stem_of(name)) in stems:
                suffix = name[len(stem) :]
                # Most names stay as they are: another text of each takes much room of a million.
                beside[name if suffix.islower() else stem + suffix.lower()] = name
        return beside

    def _read(self) -> Iterator[str]:
        yield from self.files
        yield from self._metadata
        yield from sorted(self._beside.values())

    def _read_hints(self) -> Iterator[str]:
        yield from self.hints

    def fingerprint(self) -> str:
        """Digest of the images' and captions' content; shards are not indexed for it.

        So of these it does not tell which of their files are read, and has a version of how the captions are found.
        """
        return self.archive.fingerprint(self._read()) + f" captions {_FINDING}" * self.is_sharded

    @functools.cached_property
    def left_out(self) -> Counter[str]:
        """How many of what lies beside the images and is not read, by what it is.

        Of shards it is known when they have been indexed to decode their images, which later runs need not do.
        """
        if self.is_sharded and "files" not in vars(self):
            return Counter()
        read = {*self._read(), *self.hints}
        left_out = Counter(self.archive.left_out)
        if self.hints and not self._reads_hints:
            left_out[UNREAD] = len(self.hints)
        for name in self.archive.names:
            if name not in read:
                left_out[file_kind(name)] += 1
        return left_out

    @functools.cached_property
    def uncaptioned(self) -> list[str]:
        """The names of the images without captions.

        Raises:
            UserError: when a ``metadata.jsonl`` is not laid out as above, or names a file that is not there.
        """
        beside = {stem_of(name) for name in self._beside}
        return [name for name in self.files if name not in self._named and stem_of(name) not in beside]

    def captions(self, files: Sequence[str]) -> list[list[str]]:
        """The captions of some images, which have some.

        Raises:
            UserError: when a file of captions cannot be read or is not laid out as above, or a caption is empty.
        """
        return [self._named.get(name) or self._captions_beside(stem_of(name)) for name in files]

    def offer(self) -> str:
        """What to do about the images without captions, for a message."""
        missing = self.uncaptioned
        named = ", ".join(map(visible, missing[:_SHOWN])) + ", ..." * (len(missing) > _SHOWN)
        return (
            f"{self._where}: {len(missing):,} of {len(self.files):,} images have no caption ({named}); "
            f"write a .txt file beside each, or name it in {METADATA}, "
            "or leave these out with data.skip_uncaptioned=true"
        )

    @functools.cached_property
    def _named(self) -> dict[str, list[str]]:
        """The captions that the archive's ``metadata.jsonl`` give, by the names of images."""
        found: dict[str, list[str]] = {}
        images = set(self.files)
        for metadata in self._metadata:
            folder = metadata.removesuffix(METADATA)
            for number, line in enumerate(self._text(metadata, _MAX_METADATA_BYTES).split("\n"), 1):
                if not line.strip():
                    continue
                place = f"line {number} of {metadata}"
                entry = self._parsed(entry_of, line, place)
                file = entry.get("file_name")
                if not isinstance(file, str):
                    raise UserError(f'{self._where}: {place} has no "file_name"; each line is to name an image')
                name = folder + file.replace("\\", "/").removeprefix("./")
                if name not in images:
                    what = "which is the hint of an image" if name in self.hints else "which is no image there"
                    raise UserError(f"{self._where}: {place} names {visible(name)}, {what}")
                if name in found:
                    raise UserError(f"{self._where}: {place} names {visible(name)}, as a line before it does")
                found[name] = self._parsed(captions_of_entry, entry, place)
        return found

    def _captions_beside(self, stem: str) -> list[str]:
        """The captions in the .txt or else .json file of an image."""
        if (name := self._beside.get(f"{stem}.txt")) is not None:
            return self._parsed(captions_of_lines, self._text(name, MAX_BYTES), visible(name))
        name = self._beside[f"{stem}.json"]
        entry = self._parsed(entry_of, self._text(name, MAX_BYTES), visible(name))
        return self._parsed(captions_of_entry, entry, visible(name))

    def _parsed(self, parse: Callable[[T], R], content: T, place: str) -> R:
        """What a function makes of what lies at some place, which an error names."""
        try:
            return parse(content)
        except ValueError as error:
            raise UserError(f"{self._where}: {place} {error}") from error

    def _text(self, name: str, limit: int) -> str:
        try:
            return self.archive.read(name, limit).decode("utf-8-sig")
        except Exception as error:  # a damaged archive makes its reader raise anything
            raise UserError(f"{self._where}: {visible(name)} cannot be read as UTF-8 text ({error})") from error


class Captioned(ImageFolder):
    """Images below a folder, in a zip or in tars, each with captions beside it. They have no classes.

    Where the captions lie: see `CaptionedImages`.

    Args:
        path: the folder, zip, plain tar, or folder of plain tars whose files of one image have one stem.
        test_path: another such place with images for testing; null for none.
        image_size: side in pixels.
        channels: 3 (RGB) or 1 (grey).
        flip: mirror images at random in training. Their captions stay: switch it off where they say "left" or "right".
        background: the colour behind transparent pixels, and beside padded images.
        skip_broken: leave out the images that cannot be decoded, instead of refusing the data.
        skip_uncaptioned: leave out the images without captions, instead of refusing the data.
        resize: how an image that is no square becomes one.
        hints: whether the hints beside the images are read; handed in. See `ImageFolder`.
    """

    columns = frozenset({"caption", HINT})

    def __init__(
        self,
        path: str | None,
        image_size: int,
        test_path: str | None = None,
        channels: int = 3,
        flip: bool = True,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        skip_broken: bool = False,
        skip_uncaptioned: bool = False,
        resize: Literal["crop", "pad", "stretch"] = "crop",
        hints: bool = False,
    ) -> None:
        super().__init__(path, image_size, channels, flip, background, skip_broken, resize, hints)
        self.test_path = test_path
        self.skip_uncaptioned = skip_uncaptioned

    @functools.cached_property
    def _images(self) -> dict[str, CaptionedImages]:
        if self.path is None:
            raise UserError("data.path=null: give the folder, zip or tars of your images, data.path=PLACE")
        places = {"train": (self.path, "data.path")}
        places |= {} if self.test_path is None else {"test": (self.test_path, "data.test_path")}
        return {split: CaptionedImages(*place, self.reads_hints) for split, place in places.items()}

    def check(self) -> None:
        """List the images; shards are indexed only when they must be decoded."""
        for split, images in self._images.items():
            _ = () if images.is_sharded else images.files
            if self.reads_hints and not images.is_sharded:
                self._hints(split)

    def splits(self) -> tuple[str, ...]:
        """Train, and test where there are test images."""
        return tuple(self._images)

    def fingerprint(self, split: str) -> str:
        """Names and sizes of the images and captions, with checksums (zip) or times of change."""
        return f"{self._decoding()}{' skip_uncaptioned' * self.skip_uncaptioned} {self._images[split].fingerprint()}"

    def load(self, split: str) -> SampleSet:
        """The images and their captions.

        Raises:
            UserError: when an image has none, unless it is to be left out, or a file of captions cannot be read.
        """
        images, files = self._images[split], self._captioned(split)
        if len(files) < len(images.files) and not (self.skip_uncaptioned and files):
            raise UserError(images.offer())
        if self.reads_hints:
            self._hints(split)  # shards have not been looked into before
        lazy = ImageFiles(images.archive, files, background=self.background)
        return SampleSet(lazy, skip_broken=self.skip_broken, captions=images.captions(files))

    def hints_of(self, split: str) -> Hints | None:
        """See `Source`: the files beside the images."""
        if not self.reads_hints:
            return None
        fingerprint = f"{self.fingerprint(split)} {self._images[split].hints_fingerprint()}"
        return Hints(fingerprint, self._transform(channels=1), lambda: self._hints(split))

    def _captioned(self, split: str) -> list[str]:
        """The images of a split that have captions."""
        images = self._images[split]
        missing = set(images.uncaptioned)
        return [name for name in images.files if name not in missing]

    def _hints(self, split: str) -> HintFiles:
        """The hints of the images that are not left out."""
        images = self._images[split]
        used = self._captioned(split) if self.skip_uncaptioned else images.files
        return images.hint_files(used, self.background)

    def left_out(self) -> Counter[str]:
        """What lies beside the images and captions, and images without captions, of both splits."""
        left_out: Counter[str] = sum((images.left_out for images in self._images.values()), Counter())
        if self.skip_uncaptioned and (number := sum(len(images.uncaptioned) for images in self._images.values())):
            left_out["uncaptioned image"] = number
        return left_out


def _sharded(archive: Archive) -> Archive:
    """A folder whose content is tars as the files in them; else what it is."""
    tars = [name for name in archive.names if name.lower().endswith(".tar") and "/" not in name]
    if isinstance(archive, Folder) and tars and not any(name.lower().endswith(SUFFIXES) for name in archive.names):
        return Shards(archive, tars)
    return archive
