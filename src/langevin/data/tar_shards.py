"""Images in tar shards as WebDataset has them: the files of one image have one key."""

import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from langevin.data.archive import Tar
from langevin.data.block_index import MAX_CLASS, FileRows
from langevin.data.blocks import BlockSource
from langevin.data.caption_files import MAX_BYTES, captions_of_entry, captions_of_lines, entry_of
from langevin.data.captions import Captions
from langevin.data.hints import MARK
from langevin.data.images import SUFFIXES, WHITE
from langevin.visible import visible

_LABELS = (".cls", ".json")
_CAPTIONS = (".txt", ".json")


class TarShards(BlockSource):
    """Images in a folder of uncompressed tars, each of which is one block.

    A member's key is its name up to the first dot of its last part. Beside ``key.png``, or another image format, the
    class id of an image is the whole number in ``key.cls``, else the "label" in ``key.json``; where no image has one,
    they are unlabelled. Class ids are renumbered in their order. Images are numbered as they lie in their tar. The
    captions of an image are the lines of ``key.txt``, else the "text" or "caption" in ``key.json``.

    Args:
        path: see `BlockSource`, as are all others.
        image_size: side in pixels.
        test_path: of images for testing.
        channels: 3 (RGB) or 1 (grey).
        flip: mirror images at random in training. Their captions stay.
        background: the colour behind transparent pixels, and beside padded images.
        resize: how an image that is no square becomes one.
        captions: whether captions are read: each image must have one then.
    """

    suffix = ".tar"

    def __init__(
        self,
        path: str | None,
        image_size: int,
        test_path: str | None = None,
        channels: int = 3,
        flip: bool = True,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        resize: Literal["crop", "pad", "stretch"] = "crop",
        captions: bool = False,
    ) -> None:
        super().__init__(path, image_size, test_path, channels, flip, background, resize)
        self.captioned = captions
        if captions:
            self.columns = frozenset({"label", "caption"})

    def scan(self, place: Path) -> FileRows:
        """See `BlockSource`: the members are listed, and the labels and captions read."""
        tar = _opened(place)
        images = _images(tar)
        parts = {name: _split(name) for name in tar.stored}
        beside = {key + suffix: name for name, (key, suffix) in parts.items() if suffix in _LABELS + _CAPTIONS}
        with place.open("rb") as file:
            labels = {key: _label(file, tar, key, beside) for key in images}
            texts = [_captions(file, tar, images[key], key, beside) for key in images] if self.captioned else None
        lacking = next((key for key, label in labels.items() if label is None), None)
        if lacking is not None and any(label is not None for label in labels.values()):
            raise ValueError(f"{visible(images[lacking])} has no label, and others have; label all images, or none")
        ids = [] if lacking is not None else [label for label in labels.values() if label is not None]
        return FileRows(
            np.array([len(images)] if images else [], np.int64),
            np.array(ids, np.int64),
            np.array([tar.stored[name] for name in images.values()], np.int64).reshape(-1, 2),
            captions=None if texts is None else Captions.pack(texts, list(images.values()).__getitem__),
        )

    def _reading(self) -> str:
        return " captions" * self.captioned

    def read_block(self, place: Path, number: int, extents: NDArray[np.int64], whole: bool) -> Sequence[bytes]:
        """See `BlockSource`: the tar's images, each read when it is asked for."""
        return _Stored(place, extents, whole)

    def row_name(self, place: Path, number: int, row: int) -> str:
        """See `BlockSource`: the member and its tar."""
        return f"{visible(list(_images(_opened(place)).values())[row])} in {place}"


class _Stored(Sequence[bytes]):
    """The images of a tar, each read when it is asked for. What is read ahead lies in the system's page cache.

    So all processes of a machine share it, and each reads from the disk what it needs. A map of the file would do the
    same, but an error of the disk would end the process. The file is opened anew for each image, a small part of what
    decoding it costs: a window of many tars would need more open files than a process may have.

    Args:
        place: the tar.
        extents: (R, 2) where each image begins, and how many bytes it has.
        whole: whether the system is to read all of the tar ahead, where it can be told.
    """

    def __init__(self, place: Path, extents: NDArray[np.int64], whole: bool) -> None:
        self._place = place
        self._extents = extents
        with place.open("rb", buffering=0) as file:
            self._size = os.fstat(file.fileno()).st_size
            if whole and hasattr(os, "posix_fadvise"):  # not on macOS
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def __len__(self) -> int:
        return len(self._extents)

    def __getitem__(self, row: Any) -> Any:
        start, size = map(int, self._extents[row])
        with self._place.open("rb", buffering=0) as file:
            if (now := os.fstat(file.fileno()).st_size) != self._size:
                raise ValueError(f"it has {now:,} bytes by now, and had {self._size:,}")
            content = os.pread(file.fileno(), size, start)
        if len(content) != size:
            raise ValueError(f"it ends after {len(content):,} of the {size:,} bytes at {start:,}")
        return content


def _opened(place: Path) -> Tar:
    try:
        return Tar(place)
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error


def _split(name: str) -> tuple[str, str]:
    """A member's key and the rest of its name, in small letters."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _images(tar: Tar) -> dict[str, str]:
    """The names of the images by their keys, as they lie in the tar."""
    images: dict[str, str] = {}
    for name in tar.stored:
        key, suffix = _split(name)
        if suffix not in SUFFIXES:
            if suffix.endswith(SUFFIXES) and not suffix.startswith(MARK):
                raise ValueError(f"{visible(name)} has a dot in its key, which ends at the first; rename it")
            continue
        if key in images:
            raise ValueError(f"{visible(images[key])} and {visible(name)} have one key; give each image its own")
        images[key] = name
    return images


def _read(file: Any, tar: Tar, name: str) -> bytes:
    """A small file of an open tar."""
    offset, size = tar.stored[name]
    if size > MAX_BYTES:
        raise ValueError(f"{visible(name)} has {size:,} bytes; allowed: at most {MAX_BYTES:,}")
    file.seek(offset)
    return file.read(size)


def _captions(file: Any, tar: Tar, image: str, key: str, beside: Mapping[str, str]) -> list[str]:
    """The captions of an image."""
    suffix = next((suffix for suffix in _CAPTIONS if key + suffix in beside), None)
    if suffix is None:
        raise ValueError(f"{visible(image)} has no caption; write a .txt file beside it, or set data.captions=false")
    name = beside[key + suffix]
    content = _read(file, tar, name)
    try:
        text = content.decode("utf-8-sig")
        return captions_of_lines(text) if suffix == ".txt" else captions_of_entry(entry_of(text))
    except UnicodeDecodeError as error:
        raise ValueError(f"{visible(name)} cannot be read as UTF-8 text ({error})") from error
    except ValueError as error:
        raise ValueError(f"{visible(name)} {error}") from error


def _label(file: Any, tar: Tar, key: str, beside: Mapping[str, str]) -> int | None:
    """The class id of an image; None without."""
    suffix = next((suffix for suffix in _LABELS if key + suffix in beside), None)
    if suffix is None:
        return None
    name = beside[key + suffix]
    text = _read(file, tar, name).strip()
    try:
        if suffix == ".cls":
            label: Any = int(text)
        else:
            entry = json.loads(text)
            if not isinstance(entry, Mapping) or "label" not in entry:
                return None
            label = entry["label"]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{visible(name)} holds no label ({error})") from error
    if type(label) is not int or not 0 <= label <= MAX_CLASS:
        raise ValueError(f"{visible(name)} has the label {label!r}; allowed: whole numbers from 0 to {MAX_CLASS}")
    return label
