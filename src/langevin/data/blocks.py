"""Data in blocks, such as tar shards or Parquet files, of which a few at a time are read."""

import hashlib
import io
import threading
from abc import abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from PIL import Image

from langevin.bars import progress_bar
from langevin.data.archive import Folder, file_kind, holding, refuse_empty
from langevin.data.block_index import BlockIndex, FileRows
from langevin.data.image_folder import ImageFolder
from langevin.data.images import WHITE, Color, LazyImages, decoded, stored_size
from langevin.data.source import SampleSet
from langevin.data.store import PROGRESS, folder_named, open_or_make
from langevin.errors import UserError
from langevin.interrupt import Interrupted, received

_FORMAT = 2
_AT_ONCE = 4  # blocks held at least where rows are decoded in their order
_ROWS = 64 * (1 + LazyImages.threads)  # which are decoded there at a time, about: a chunk of the cache by each thread


class BlockSource(ImageFolder):
    """Images in files of many, each of one block or several; rows are numbered in the order of the files' names.

    Args:
        path: the folder of the files, or one of them.
        test_path: another such place with images for testing; null for none.
        image_size: side in pixels.
        channels: 3 (RGB) or 1 (grey).
        flip: mirror images at random in training.
        background: the colour behind transparent pixels, and beside padded images.
        resize: how an image that is no square becomes one.

    Attributes:
        suffix: what the files' names end with.
    """

    columns = frozenset({"label"})  # and no hints
    suffix: ClassVar[str]

    def __init__(
        self,
        path: str | None,
        image_size: int,
        test_path: str | None = None,
        channels: int = 3,
        flip: bool = True,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        resize: Literal["crop", "pad", "stretch"] = "crop",
    ) -> None:
        super().__init__(path, image_size, channels, flip, background, skip_broken=False, resize=resize)
        self.test_path = test_path
        self._lists: dict[str, tuple[Path, list[str]]] = {}
        self._others: dict[Path, Counter[str]] = {}

    @abstractmethod
    def scan(self, place: Path) -> FileRows:
        """What a file holds, found without decoding an image.

        Raises:
            ValueError: when it is damaged, or not laid out as this kind of file is.
        """

    @abstractmethod
    def read_block(
        self, place: Path, number: int, extents: NDArray[np.int64], whole: bool
    ) -> Sequence[bytes | memoryview]:
        """The encoded images of a block; they may be read when they are asked for.

        Args:
            place: the file.
            number: the block's place in it.
            extents: of its rows.
            whole: whether most of them will be asked for.

        Raises:
            ValueError: when it is damaged, also by what is returned.
        """

    @abstractmethod
    def row_name(self, place: Path, number: int, row: int) -> str:
        """What to call a row of a block in a message."""

    def where(self, split: str) -> str:
        """The option that gives a split, and its value."""
        return f"data.path={self.path}" if split == "train" else f"data.test_path={self.test_path}"

    def check(self) -> None:
        """List the files."""
        for split in self.splits():
            self._listed(split)

    def splits(self) -> tuple[str, ...]:
        """Train, and test where there are test images."""
        return ("train",) if self.test_path is None else ("train", "test")

    def fingerprint(self, split: str) -> str:
        """Names, sizes and times of change of the files."""
        return f"{self._decoding()} {self._stamp(split)}"

    def content_of(self, index: BlockIndex) -> str:
        """The digest of a split that is streamed: of its listing, and of how images are decoded."""
        what = f"{index.digest()} {self._decoding()}{self._reading()} {self.transform!r}"
        return hashlib.sha256(what.encode()).hexdigest()

    def load(self, split: str) -> SampleSet:
        """The rows and their labels, in order, to be decoded into a cache."""
        folder, names = self._listed(split)
        index = self._indexed(split, map(self._scanned, (folder / name for name in names)))
        labels, classes = (index.labels, index.classes) if len(index.labels) else (None, None)
        ends = np.searchsorted(index.starts, np.minimum(index.starts[1:] + _ROWS, len(index)))
        limit = max(_AT_ONCE, int((ends - np.arange(len(ends))).max()))  # as many blocks as these rows lie in
        captions = None if index.captions is None else [index.captions.of(row) for row in range(len(index))]
        return SampleSet(BlockImages(BlockReader(self, split, index, limit)), labels, classes, captions=captions)

    def left_out(self) -> Counter[str]:
        """What lies beside the files; what else is in them is not listed again once they are indexed."""
        return sum(self._others.values(), Counter())

    def open_index(self, split: str, cache_dir: Path) -> BlockIndex:
        """A split's index, kept among the caches; made first if there is none.

        Any number of processes may call this at once. One that is killed leaves the files it has indexed to the next.

        Raises:
            UserError: when a file is damaged, or `cache_dir` cannot be written.
            Interrupted: between two files, once a signal has come.
        """
        place, names = self._listed(split)
        folder = folder_named(cache_dir, f"{self.name}-{split}-index", (_FORMAT, self._stamp(split)))

        def fill(building: Path) -> None:
            print(f"indexing {len(names):,} files of {self.where(split)} once; none is decoded", flush=True)
            (building / PROGRESS).touch()
            with progress_bar(total=len(names), desc=f"indexing {self.name}-{split}", unit="file") as progress:

                def part(number: int) -> FileRows:
                    if received() is not None:
                        raise Interrupted(f"by {received()} with {number:,} of {len(names):,} files indexed")
                    kept = building / f"part_{number}.npz"
                    rows = FileRows.read(kept)
                    if rows is None:
                        rows = self._scanned(place / names[number])
                        rows.write(kept)
                    progress.update(1)
                    return rows

                self._indexed(split, map(part, range(len(names)))).write(building)
            for kept in building.glob("part_*.npz"):
                kept.unlink()

        return open_or_make(folder, BlockIndex.read, lambda: fill, "the index of the blocks", "indexes the blocks")

    def file_of(self, split: str, name: str) -> Path:
        """The path of one of the files."""
        return self._listed(split)[0] / name

    def _stamp(self, split: str) -> str:
        place, names = self._listed(split)
        return f"{type(self).__name__} {Folder(place).fingerprint(names)}{self._reading()}"

    def _reading(self) -> str:
        """The options that affect what is read of the files, for the fingerprint."""
        return ""

    def _indexed(self, split: str, parts: Iterable[FileRows]) -> BlockIndex:
        place, names = self._listed(split)
        return BlockIndex.of(names, [(place / name).stat().st_size for name in names], parts, self.where(split))

    def _scanned(self, place: Path) -> FileRows:
        try:
            return self.scan(place)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes its reader raise anything
            raise UserError(f"{place}: cannot be indexed ({error})") from error

    def _listed(self, split: str) -> tuple[Path, list[str]]:
        """The folder, and the names of its files, looked up once."""
        if split not in self._lists:
            self._lists[split] = self._list(split)
        return self._lists[split]

    def _list(self, split: str) -> tuple[Path, list[str]]:
        path = self.path if split == "train" else self.test_path
        if path is None:
            raise UserError(f"data.path=null: give the folder of your {self.suffix} files, data.path=FOLDER")
        refuse_empty(path, self.where(split).partition("=")[0])
        place = Path(path).expanduser()
        if not place.exists():
            raise UserError(f"{self.where(split)}: there is no such file or folder (looked for {place.absolute()})")
        if place.is_file():
            return place.parent, [place.name]
        folder = Folder(place)
        names = [name for name in folder.names if name.lower().endswith(self.suffix)]
        if not names:
            raise UserError(f"{self.where(split)}: holds no {self.suffix} file{holding(folder)}")
        beside = Counter(file_kind(name) for name in folder.names if not name.lower().endswith(self.suffix))
        self._others[place.resolve()] = beside + folder.left_out  # once where both splits lie in one folder
        return place, names


class BlockReader:
    """Encoded images by their rows, of which at most `limit` blocks are kept: those that were read last.

    Safe from many threads. Pickling leaves the blocks behind, so a data-loading worker reads its own.

    Args:
        source: reads a block.
        split: whose.
        index: of the split.
        limit: at least 1.
        whole: whether most rows of each block will be asked for.
    """

    def __init__(self, source: BlockSource, split: str, index: BlockIndex, limit: int, whole: bool = True) -> None:
        self.source = source
        self.split = split
        self.index = index
        self.limit = limit
        self.whole = whole
        self._held: OrderedDict[int, Sequence[bytes | memoryview]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, row: int) -> bytes | memoryview:
        """A row's encoded image.

        Raises:
            UserError: when its file has changed since it was indexed, or cannot be read.
        """
        block, place = self.index.place(row)
        with self._lock:
            if block in self._held:
                self._held.move_to_end(block)
            else:
                while len(self._held) >= self.limit:
                    self._held.popitem(last=False)
                with self._reported(block):
                    self._held[block] = self._read(block)
            rows = self._held[block]
        with self._reported(block):
            return rows[place]

    def name(self, row: int) -> str:
        """What to call a row in a message."""
        block, place = self.index.place(row)
        with suppress(OSError, ValueError, IndexError):  # of a file that has changed
            return self.source.row_name(self._file(block), int(self.index.numbers[block]), place)
        return f"image {place} of {self._file(block)}"

    def _file(self, block: int) -> Path:
        return self.source.file_of(self.split, self.index.names[self.index.files[block]])

    def _read(self, block: int) -> Sequence[bytes | memoryview]:
        file, size = self._file(block), self.index.sizes[self.index.files[block]]
        rows = slice(self.index.starts[block], self.index.starts[block + 1])
        if (now := file.stat().st_size) != size:
            raise ValueError(f"it has {now:,} bytes, and had {size:,} when it was indexed")
        return self.source.read_block(file, int(self.index.numbers[block]), self.index.extents[rows], self.whole)

    @contextmanager
    def _reported(self, block: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a damaged file makes its reader raise anything
            raise UserError(f"{self._file(block)}: cannot be read ({error}); restore it, and start again") from error

    def __reduce__(self) -> tuple[Callable[..., "BlockReader"], tuple]:
        return BlockReader, (self.source, self.split, self.index, self.limit, self.whole)


@dataclass(frozen=True)
class BlockImages(LazyImages):
    """The images of a split that lies in blocks, by their rows.

    Attributes:
        reader: gives them encoded.
    """

    reader: BlockReader

    def __len__(self) -> int:
        return len(self.reader.index)

    def name(self, index: int) -> str:  # noqa: D102
        return self.reader.name(index)

    def size(self, index: int) -> tuple[int, int]:  # noqa: D102
        return stored_size(io.BytesIO(self.reader[index]))

    def open(self, index: int) -> Image.Image:  # noqa: D102
        background: Color = self.reader.source.background
        content = self.reader[index]
        if not len(content):
            raise ValueError("it is empty")
        return decoded(io.BytesIO(content), background)
