"""Images kept on disk as they are made, so that after a kill they need not be made again."""

import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin.config.identity import digest
from langevin.files import write_atomically


class SampleStore:
    """Finished batches, one file each, in a hidden folder that is named after all that decides what they show.

    A batch is stored completely or not at all, and may be written by any process.

    Args:
        directory: holds the folder, which is made when the first batch is put there.
        kind: what the folder's name begins with.
        meaning: what decides what the images show and how they are cut into batches: plain values.
    """

    def __init__(self, directory: Path, kind: str, meaning: Mapping[str, Any]) -> None:
        self.folder = directory / f".{kind}-{digest(meaning, 16)}"
        self.kind = kind

    def get(self, indices: Sequence[int]) -> dict[str, NDArray] | None:
        """The arrays stored for these consecutive images; None where there are none."""
        try:
            with np.load(self._path(indices), allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # absent, or damaged by the disk: made anew
            return None

    def put(self, indices: Sequence[int], arrays: dict[str, NDArray]) -> None:
        """Keep arrays (B, ...) of these consecutive images.

        Raises:
            OSError: when the disk is full.
        """
        write_atomically(self._path(indices), lambda file: np.savez(file, allow_pickle=False, **arrays))

    def arrays(self, name: str, batches: Iterable[Sequence[int]]) -> Iterator[NDArray]:
        """One of the arrays of each batch, all of which are stored."""
        for indices in batches:
            with np.load(self._path(indices), allow_pickle=False) as arrays:
                yield arrays[name]

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_others(self) -> None:
        """Remove what was kept in the same directory, by the same kind of work, of other images."""
        for folder in self.folder.parent.glob(f".{self.kind}-*"):
            if folder != self.folder:
                shutil.rmtree(folder, ignore_errors=True)

    def _path(self, indices: Sequence[int]) -> Path:
        return self.folder / f"{indices[0]:08d}-{indices[-1]:08d}.npz"
