"""Which rows the blocks of data hold: listed once, and kept."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langevin.errors import UserError

_ARRAYS = ("starts", "files", "numbers", "ids", "extents")


class FileRows(NamedTuple):
    """What the index holds of one file.

    Attributes:
        counts: (K,) int64, the rows of each of its blocks.
        ids: (R,) int64 in [0, 2^31), the class id of each row; empty when they have none.
        extents: (R, E) int64, what finds each row in its block; E is of the kind of file, and may be 0.
    """

    counts: NDArray[np.int64]
    ids: NDArray[np.int64]
    extents: NDArray[np.int64]


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
        folder: where it is kept; None where it is not.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    starts: NDArray[np.int64]
    files: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ids: NDArray[np.int64]
    extents: NDArray[np.int64]
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
            UserError: when there is no row at all, or some files have classes and others do not.
        """
        found = list(parts)
        rows = [len(part.extents) for part in found]
        if not sum(rows):
            raise UserError(f"{where}: its {len(names):,} files hold no image")
        have = [bool(len(part.ids)) for part in found]
        if any(have) and (lacking := [i for i, number in enumerate(rows) if number and not have[i]]):
            raise UserError(f"{where}: {names[have.index(True)]} has labels, {names[lacking[0]]} has none; label all")
        return cls(
            tuple(names),
            tuple(sizes),
            np.cumsum(np.concatenate([[0], *(part.counts for part in found)]), dtype=np.int64),
            np.concatenate([np.full(len(part.counts), place) for place, part in enumerate(found)]),
            np.concatenate([np.arange(len(part.counts)) for part in found]),
            np.concatenate([part.ids for part in found]),
            np.concatenate([part.extents for part in found]),
        )

    @classmethod
    def read(cls, folder: Path) -> "BlockIndex":
        """That which `write` has written, memory-mapped.

        Raises:
            ValueError: when a file is missing, cut short, or not as the others describe it.
        """
        try:
            meta = json.loads((folder / "meta.json").read_bytes())
            arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _ARRAYS}
            index = cls(tuple(meta["names"]), tuple(meta["sizes"]), **arrays, folder=folder)
            shapes = {name: list(values.shape) for name, values in arrays.items()}
            if shapes != meta["shapes"] or len(index) != len(index.extents):
                raise ValueError(f"its arrays are of {shapes}, not {meta['shapes']}")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: not a complete index ({error})") from error
        return index

    def write(self, folder: Path) -> None:
        """Keep it in a folder, which is there."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values, allow_pickle=False)
        shapes = {name: values.shape for name, values in arrays.items()}
        (folder / "meta.json").write_text(json.dumps({"names": self.names, "sizes": self.sizes, "shapes": shapes}))

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

    def labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        """(N,) class indices from 0 up without a gap, and the classes' names, which are their ids; None without."""
        if not len(self.ids):
            return None
        ids, labels = np.unique(self.ids, return_inverse=True)
        return labels.astype(np.int64), tuple(str(each) for each in ids.tolist())

    def digest(self) -> str:
        """The sha256 of what is listed: the files' names and sizes, and where their rows are. No file is read."""
        whole = hashlib.sha256(json.dumps([self.names, self.sizes]).encode())
        for name in _ARRAYS:
            values = getattr(self, name)
            whole.update(repr((name, values.shape)).encode() + values.astype("<i8").tobytes())
        return whole.hexdigest()
