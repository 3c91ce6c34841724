"""What an encoder computes of captions, once for each distinct text, kept in memory or beside the decoded images."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.bars import progress_bar
from langevin.data.captions import StoredTexts
from langevin.data.store import PROGRESS, folder_named, open_or_make, room_for
from langevin.interrupt import Interrupted, received

TEXT, MASK = "text", "text_mask"
"""The columns of an encoding of each token, and of which tokens count."""
_CHUNK = 64  # texts encoded together
_ROWS, _STARTS = "rows", "starts"  # of the tokens that count: their encodings, and where those of each text begin


@dataclass(frozen=True)
class CaptionEncoder:
    """What computes the columns of captions.

    Attributes:
        function: what tells what it computes from what others do, such as the digest of its weights.
        columns: the shape and type of a caption's row in each column, by names. Of a column "text" (L, D) beside
            "text_mask" (L,) bool only the rows that the mask has are kept; the others are zeros in a batch.
        cached: whether computing them takes so long that they are kept in files.
        encode: gives the rows (n, *shape) of n captions.
    """

    function: str
    columns: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    cached: bool
    encode: Callable[[Sequence[str]], Mapping[str, NDArray]]

    @property
    def is_ragged(self) -> bool:
        """Whether captions take as many rows as they have tokens."""
        return MASK in self.columns and len(self.columns[TEXT][0]) > 1


class Encodings:
    """The columns of T texts.

    Args:
        columns: of each text: (T, *shape), all but those that are ragged.
        rows: (R + 1, D), the tokens that count, of all texts one after the other, and a row of zeros for the others;
            None where "text" is not ragged.
        starts: (T + 1,) int64, where those of each text begin, and the end.
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray],
        rows: NDArray | None = None,
        starts: NDArray[np.int64] | None = None,
    ) -> None:
        self.columns = columns
        self.rows = rows
        self.starts = starts

    def batch(self, places: NDArray[np.int64]) -> dict[str, Tensor]:
        """The columns of some texts: one gather a column.

        Args:
            places: (B,) of the texts; B may be 0.

        Returns:
            (B, *shape) of each column.
        """
        found = {name: values[places] for name, values in self.columns.items()}
        if self.rows is not None and self.starts is not None:
            starts, mask = self.starts[places], found[MASK]
            lengths = self.starts[places + 1] - starts
            before = np.cumsum(lengths) - lengths  # of the other texts in this batch
            which = np.full(mask.shape, len(self.rows) - 1)
            which[mask] = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
            found[TEXT] = self.rows.take(which, axis=0)
        return {name: torch.from_numpy(values) for name, values in found.items()}


class StoredEncodings(Encodings):
    """Those in a finished folder, memory-mapped; pickling stores only the folder's name.

    Raises:
        ValueError: when a file is missing, cut short, or not as ``meta.json`` describes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
            found = {
                name: _mapped(folder / f"{name}.bin", tuple(shape), np.dtype(dtype))
                for name, (shape, dtype) in meta["arrays"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: not complete ({error})") from error
        rows, starts = found.pop(_ROWS, None), found.pop(_STARTS, None)
        super().__init__(found, rows, starts)

    def __reduce__(self) -> tuple[type["StoredEncodings"], tuple[Path]]:
        return StoredEncodings, (self.folder,)


def encode_texts(cache_dir: Path, name: str, texts: StoredTexts, encoder: CaptionEncoder) -> Encodings:
    """Open the encodings of texts, and compute them first if there are none; killed and rerun, it resumes.

    Args:
        cache_dir: the folder of all caches.
        name: what they are called there, for people.
        texts: distinct ones.
        encoder: called only if they must be computed. What needs no file is computed in each process.

    Raises:
        UserError: when they cannot be written, or there is not enough room.
        Interrupted: between two chunks, once a signal has come.
    """
    if not encoder.cached:
        chunks = list(_encoded(texts, encoder, range(0, len(texts), _CHUNK)))
        return Encodings({name: np.concatenate([chunk[name] for chunk in chunks]) for name in encoder.columns})
    layout = {name: (shape, dtype.str) for name, (shape, dtype) in sorted(encoder.columns.items())}
    folder = folder_named(cache_dir, name, ("captions", texts.digest, encoder.function, layout))

    def prepare() -> Callable[[Path], None]:
        _announce(folder, texts, encoder)
        return lambda building: _fill(building, texts, encoder, folder.name.rpartition("-")[0])

    return open_or_make(folder, StoredEncodings, prepare, "the cache of encoded captions", "encodes the captions")


def _announce(folder: Path, texts: StoredTexts, encoder: CaptionEncoder) -> None:
    """Say how much room the encodings take before they are computed; of ragged ones a few texts tell about how much."""
    sizes = {name: math.prod(shape) * dtype.itemsize for name, (shape, dtype) in encoder.columns.items()}
    if encoder.is_ragged:
        places = np.linspace(0, len(texts) - 1, min(_CHUNK, len(texts))).astype(np.int64)
        some = encoder.encode([texts[int(place)] for place in places])
        sizes[TEXT] = math.ceil(sizes[TEXT] * some[MASK].mean())
    about = "about " if encoder.is_ragged else ""
    room = room_for(folder, len(texts) * sum(sizes.values()), f"the encodings of {len(texts):,} captions", about)
    print(f"encoding {len(texts):,} distinct caption{'s' * (len(texts) > 1)} once: {room}", flush=True)


class _Chunk(NamedTuple):
    """Some texts that are encoded.

    Attributes:
        digest: the sha256 of what was appended to the files, in the order of their names.
        ends: how long each file is since.
    """

    digest: str
    ends: dict[str, int]

    def line(self) -> bytes:
        return f"{json.dumps(self)}\n".encode()


def _fill(building: Path, texts: StoredTexts, encoder: CaptionEncoder, title: str) -> None:
    """Append what is computed of the texts, in their order, to one file a column, from where an earlier call got to."""
    arrays = dict(encoder.columns)
    if encoder.is_ragged:
        shape, dtype = arrays.pop(TEXT)
        arrays[_ROWS] = (shape[1:], dtype)
    names = sorted(arrays)
    chunks = _finished(building, names)[: -(-len(texts) // _CHUNK)]
    with ExitStack() as stack:
        files = {name: stack.enter_context(open(building / f"{name}.bin", "ab", buffering=0)) for name in names}
        ends = chunks[-1].ends if chunks else dict.fromkeys(names, 0)
        for name, file in files.items():
            file.truncate(ends[name])
            file.seek(ends[name])
        progress = stack.enter_context(progress_bar(total=len(texts), desc=f"encoding {title}", unit="caption"))
        noted = stack.enter_context(open(building / PROGRESS, "wb", buffering=0))
        for chunk in chunks:
            noted.write(chunk.line())
        done = min(_CHUNK * len(chunks), len(texts))
        progress.update(done)
        for rows in _encoded(texts, encoder, range(done, len(texts), _CHUNK)):
            blocks = {name: rows[TEXT][rows[MASK]] if name == _ROWS else rows[name] for name in names}
            whole = hashlib.sha256()
            for name, block in blocks.items():
                data = np.ascontiguousarray(block).tobytes()
                _write_all(files[name], data)
                whole.update(data)
            noted.write(_Chunk(whole.hexdigest(), {name: files[name].tell() for name in names}).line())
            number = len(next(iter(rows.values())))
            done += number
            progress.update(number)
            if received() is not None:
                text = f"by {received()} with {done:,} of {len(texts):,} captions of {title} encoded"
                raise Interrupted(text)
    shapes = {name: (len(texts), *shape) for name, (shape, _) in arrays.items()}
    if encoder.is_ragged:
        mask = _mapped(building / f"{MASK}.bin", shapes[MASK], arrays[MASK][1])
        starts = np.concatenate([[0], np.cumsum(mask.sum(1, dtype=np.int64))])
        (building / f"{_STARTS}.bin").write_bytes(starts.tobytes())
        row, dtype = arrays[_ROWS]
        with open(building / f"{_ROWS}.bin", "ab") as ending:
            ending.write(np.zeros(row, dtype).tobytes())
        shapes[_ROWS], shapes[_STARTS] = (int(starts[-1]) + 1, *row), starts.shape
        arrays[_STARTS] = ((), starts.dtype)
    meta = {"arrays": {name: (shape, arrays[name][1].str) for name, shape in shapes.items()}}
    (building / "meta.json").write_text(json.dumps(meta))


def _encoded(texts: StoredTexts, encoder: CaptionEncoder, firsts: range) -> Iterator[Mapping[str, NDArray]]:
    """The rows of each chunk of texts."""
    for first in firsts:
        some = texts[first : first + _CHUNK]
        rows = encoder.encode(some)
        for name, (shape, dtype) in encoder.columns.items():
            assert rows[name].shape == (len(some), *shape), f"{name} {rows[name].shape}"
            assert rows[name].dtype == dtype, f"{name} {rows[name].dtype}"
        yield {name: rows[name] for name in encoder.columns}


def _finished(building: Path, names: Sequence[str]) -> list[_Chunk]:
    """The chunks that an earlier call has finished, up to the first whose bytes are not the ones that it noted."""
    found: list[_Chunk] = []
    with suppress(OSError, ValueError, TypeError, KeyError), ExitStack() as stack:
        lines = (building / PROGRESS).read_text().splitlines()
        files = {name: stack.enter_context(open(building / f"{name}.bin", "rb")) for name in names}
        for line in lines:
            chunk, whole = _Chunk(*json.loads(line)), hashlib.sha256()
            for name, file in files.items():
                whole.update(file.read(chunk.ends[name] - file.tell()))
            if whole.hexdigest() != chunk.digest or any(
                file.tell() != chunk.ends[name] for name, file in files.items()
            ):
                break
            found.append(chunk)
    return found


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Write without a buffer, which writes a part when the disk is nearly full."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> NDArray[Any]:
    """A file of numbers as a plain, read-only array: np.memmap runs Python code at each indexing."""
    size = math.prod(shape) * dtype.itemsize
    if os.stat(path).st_size != size:
        raise ValueError(f"{path.name} has {os.stat(path).st_size} bytes, not {size}")
    return np.asarray(np.memmap(path, dtype, "r", shape=shape))
