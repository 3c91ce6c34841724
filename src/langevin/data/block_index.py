"""Which rows the blocks of data hold: listed once, and kept."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.data.captions import Captions, StoredTexts
from langevin.errors import UserError
from langevin.files import write_atomically

MAX_CLASS = 2**31 - 1
"""The largest class id."""
_ARRAYS = ("starts", "files", "numbers", "ids", "extents")
_STORED = (*_ARRAYS, "labels")  # the labels follow from the ids, so the digest is without them
_OF_FILE = ("counts", "ids", "extents")
_NAMES = "class_names"


class FileRows(NamedTuple):
    """What the index holds of one file.

    Attributes:
        counts: (K,) int64, the rows of each of its blocks.
        ids: (R,) int64 in [0, 2^31), the class id of each row; empty when they have none.
        extents: (R, E) int64, what finds each row in its block; E is of the kind of file, and may be 0.
        class_names: of the class ids from 0 up; none where the kind of file has no names.
        captions: of the rows; None when they have none.
    """

    counts: NDArray[np.int64]
    ids: NDArray[np.int64]
    extents: NDArray[np.int64]
    class_names: tuple[str, ...] = ()
    captions: Captions | None = None

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        arrays = {name: getattr(self, name) for name in _OF_FILE}
        arrays[_NAMES] = np.frombuffer(json.dumps(self.class_names).encode(), np.uint8)
        arrays |= {} if self.captions is None else self.captions.arrays()
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    @classmethod
    def read(cls, path: Path) -> "FileRows | None":
        """That which `write` has written; None where it has not, or that is damaged."""
        with suppress(OSError, ValueError, KeyError, EOFError), np.load(path, allow_pickle=False) as arrays:
            captions = None
            if Captions.FILES[0] in arrays:
                utf8, bounds, ids, starts = (arrays[name] for name in Captions.FILES)
                captions = Captions(StoredTexts(utf8, bounds), ids, starts)
            names = tuple(json.loads(arrays[_NAMES].tobytes()))
            return cls(**{name: arrays[name] for name in _OF_FILE}, class_names=names, captions=captions)
        return None


@dataclass(frozen=True)
class BlockIndex:
    """The blocks of one split.

    Attributes:
        names: of the F files, in order.
        sizes: of each file in bytes.
        starts: (B + 1,) int64, where the rows of each block begin, and the end.
        files: (B,) int64, which file each block lies in.
        numbers: (B,) int64, its place there.
        ids: (N,) int64, the class id of each row; empty when they have none.
        extents: (N, E) int64, see `FileRows`.
        labels: (N,) int64, the class index of each row; empty when they have none. Where the files name their classes,
            those are all of them, and an id is an index. Else the ids that there are are renumbered in their order
            without a gap.
        classes: a name for each class index; where the files have no names, the id.
        class_names: of the class ids from 0 up; none where the files have no names.
        captions: of all rows; None when they have none.
        noted: its digest, where it is known already.
        folder: where it is kept; None where it is not.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    starts: NDArray[np.int64]
    files: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ids: NDArray[np.int64]
    extents: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    class_names: tuple[str, ...] = ()
    captions: Captions | None = None
    noted: str | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, names: Sequence[str], sizes: Sequence[int], parts: Iterable[FileRows], where: str) -> "BlockIndex":
        """The index of files in order.

        Args:
            names: of the files.
            sizes: in bytes.
            parts: what each of them holds.
            where: how messages refer to the data.

        Raises:
            UserError: when there is no row at all, some files have classes and others do not, or they name them
                differently.
        """
        found = list(parts)
        rows = [len(part.extents) for part in found]
        if not sum(rows):
            raise UserError(f"{where}: its {len(names):,} files hold no image")
        first, *others = (i for i, number in enumerate(rows) if number)
        if (other := next((i for i in others if found[i].class_names != found[first].class_names), None)) is not None:
            raise UserError(f"{where}: {names[first]} and {names[other]} name their classes differently")
        captions = [part.captions for part in found if part.captions is not None]
        have = [bool(len(part.ids)) for part in found]
        if any(have) and (lacking := [i for i, number in enumerate(rows) if number and not have[i]]):
            raise UserError(f"{where}: {names[have.index(True)]} has labels, {names[lacking[0]]} has none; label all")
        ids = np.concatenate([part.ids for part in found])
        labels, classes = _renumbered(ids, found[first].class_names)
        return cls(
            tuple(names),
            tuple(sizes),
            np.cumsum(np.concatenate([[0], *(part.counts for part in found)]), dtype=np.int64),
            np.concatenate([np.full(len(part.counts), place) for place, part in enumerate(found)]),
            np.concatenate([np.arange(len(part.counts)) for part in found]),
            ids,
            np.concatenate([part.extents for part in found]),
            labels,
            classes,
            found[first].class_names,
            Captions.joined(captions) if captions else None,
        )

    @classmethod
    def read(cls, folder: Path) -> "BlockIndex":
        """That which `write` has written, memory-mapped: no row is looked at, however many there are.

        Raises:
            ValueError: when a file is missing, cut short, or not as the others describe it.
        """
        try:
            meta = json.loads((folder / "meta.json").read_bytes())
            arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _STORED}
            captions = Captions.read(folder, tuple(meta["vocabulary"])) if "vocabulary" in meta else None
            found: dict[str, Any] = arrays | {name: tuple(meta[name]) for name in ("names", "sizes", "classes", _NAMES)}
            index = cls(**found, captions=captions, noted=meta["digest"], folder=folder)
            shapes = {name: list(values.shape) for name, values in arrays.items()}
            if shapes != meta["shapes"] or len(index) != len(index.extents):
                raise ValueError(f"its arrays are of {shapes}, not {meta['shapes']}")
            if captions is not None and len(captions) != len(index):
                raise ValueError(f"it has the captions of {len(captions)} rows, not {len(index)}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: not a complete index ({error})") from error
        return index

    def write(self, folder: Path) -> None:
        """Keep it in a folder, which is there."""
        arrays = {name: getattr(self, name) for name in _STORED}
        of_captions = {} if self.captions is None else self.captions.arrays()
        for name, values in (arrays | of_captions).items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
        shapes = {name: values.shape for name, values in arrays.items()}
        meta = {"names": self.names, "sizes": self.sizes, "shapes": shapes, _NAMES: self.class_names}
        meta |= {"classes": self.classes, "digest": self.digest()}
        meta |= {} if self.captions is None else {"vocabulary": self.captions.vocabulary}
        (folder / "meta.json").write_text(json.dumps(meta))

    def __len__(self) -> int:
        """The number of rows, N."""
        return int(self.starts[-1])

    def __reduce__(self) -> str | tuple:
        return super().__reduce__() if self.folder is None else (BlockIndex.read, (self.folder,))

    @property
    def counts(self) -> NDArray[np.int64]:
        """(B,) int64, the rows of each block."""
        return np.diff(self.starts)

    def place(self, row: int) -> tuple[int, int]:
        """The block that holds a row, and the row's place in it."""
        block = int(np.searchsorted(self.starts, row, side="right")) - 1
        return block, row - int(self.starts[block])

    def digest(self) -> str:
        """The sha256 of what is listed: the files' names and sizes, and where their rows are. No file is read."""
        if self.noted is not None:
            return self.noted
        whole = hashlib.sha256(json.dumps([self.names, self.sizes]).encode())
        for name in _ARRAYS:
            values = getattr(self, name)
            whole.update(repr((name, values.shape)).encode() + values.astype("<i8").tobytes())
        if self.class_names:
            whole.update(json.dumps([_NAMES, self.class_names]).encode())
        if self.captions is not None:
            whole.update(f"captions {self.captions.digest}".encode())
        return whole.hexdigest()


def _renumbered(ids: NDArray[np.int64], class_names: tuple[str, ...]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The class indices, and the classes' names, of `BlockIndex`."""
    if class_names or not len(ids):
        return ids, class_names
    found, labels = np.unique(ids, return_inverse=True)
    return labels.astype(np.int64), tuple(str(each) for each in found.tolist())
