"""Samples decoded, cropped and resized once, then memory-mapped by every process and every later run."""

import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langevin.bars import progress_bar
from langevin.data.captions import Captions
from langevin.data.images import LazySamples, Transform
from langevin.data.source import SampleSet, usable
from langevin.data.store import PROGRESS, folder_named, open_or_make
from langevin.files import write_json
from langevin.images import HINT
from langevin.interrupt import Interrupted, received

BYTES = "|u1"
"""The type of the samples of a cache that does not note it, as numpy writes it."""
_FORMAT = 1
_CHUNK = 64  # images decoded, hashed and written together: another number would change the digest of all data
_NAMED = 3  # enlarged images whose names are kept


class CachedSamples:
    """A finished cache: samples on disk, read through a memory map.

    Pickling stores only the folder's name, so a data-loading worker maps the file again instead of copying it.

    Args:
        folder: holds ``images.npy``, ``labels.npy``, a file for each further column, those of the captions, and
            ``meta.json``.
        captions: of the samples, where they are not stored with them.
        hints: of the samples, a cache of grey images; None without.

    Attributes:
        samples: (N, *size, C), read-only; images are uint8.
        labels: (N,) int64, -1 for unlabelled.
        columns: the further columns, see `SampleSet`.
        class_names: a name for each class, or None when unlabelled.
        captions: of the samples, or None when they have none.
        skipped: the names of the images that were left out because they cannot be decoded.
        broken: their places among all images; none where the cache is too old to note them.
        enlarged: how many images were smaller than they are stored, and the names of the first of them.

    Raises:
        ValueError: when a file is missing, cut short, or not as ``meta.json`` describes it.
    """

    def __init__(self, folder: Path, captions: Captions | None = None, hints: "CachedSamples | None" = None) -> None:
        self.folder = folder
        self._given = captions
        self.hints = hints
        try:
            meta: dict[str, Any] = json.loads((folder / "meta.json").read_bytes())
            sizes = {name: (folder / name).stat().st_size for name in meta["bytes"]}
            if sizes != meta["bytes"]:
                raise ValueError(f"its files are of {sizes} bytes, not {meta['bytes']}")
            # As a plain array: np.memmap runs Python code at each indexing.
            self.samples: NDArray[Any] = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))
            self.labels: NDArray[np.int64] = np.load(folder / "labels.npy")
            self.columns: dict[str, NDArray] = {
                name: np.asarray(np.load(folder / _file_of(name), mmap_mode="r")) for name in meta.get("columns", ())
            }
            stored = Captions.read(folder, tuple(meta["vocabulary"])) if "vocabulary" in meta else None
            names = meta["class_names"]
            shape, dtype = tuple(meta["shape"]), np.dtype(meta.get("dtype", BYTES))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: not a complete cache ({error})") from error
        if self.samples.shape != shape or self.samples.dtype != dtype or self.labels.shape != shape[:1]:
            raise ValueError(f"{folder}: arrays of {self.samples.shape} and {self.labels.shape}, not {shape}")
        self.class_names: tuple[str, ...] | None = None if names is None else tuple(names)
        self.skipped: tuple[str, ...] = tuple(meta.get("skipped", ()))
        self.broken: tuple[int, ...] = tuple(meta.get("broken", ()))
        self.enlarged: tuple[int, tuple[str, ...]] = (meta.get("enlarged", 0), tuple(meta.get("enlarged_names", ())))
        self.captions: Captions | None = captions or stored
        self._meta = meta

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of the samples, labels, class names, captions and hints, in their order: what the data is.

        It was noted when the cache was built. A cache that is older than that has it computed once, at over 1 GB/s, and
        noted if the folder can be written; processes that do so together write the same.
        """
        digest = self.stored_digest if self._given is None else _with_captions(self.stored_digest, self._given)
        return digest if self.hints is None else _sha256(f"{digest} hints {self.hints.digest}")

    @functools.cached_property
    def stored_digest(self) -> str:
        """The same without hints, and without captions that are not stored with the samples."""
        noted = self._meta.get("digest")
        if isinstance(noted, str):
            return noted
        shape, dtype = self.samples.shape, self.samples.dtype
        digest = _digest(shape, dtype, self.labels, self.class_names, self.columns, _hashed(self.samples))
        with suppress(OSError):
            write_json(self.folder / "meta.json", self._meta | {"digest": digest})
        return digest

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Some of the samples and all that is known of them: one gather from the memory map a column.

        Args:
            indices: (B,), of which B may be 0.

        Returns:
            "x" (B, C, *size) as stored, with channels-last strides, "label" (B,) int64 (-1: none), "index" (B,) int64,
            the place in the data, and the further columns; "hint" (B, 1, *size) as stored, where there are hints.
        """
        rows = np.asarray(indices, np.int64)
        columns = {
            "label": self.labels[rows],
            "index": rows,
            **{name: each[rows] for name, each in self.columns.items()},
        }
        images = {"x": self.samples} | ({} if self.hints is None else {HINT: self.hints.samples})
        gathered = {name: torch.from_numpy(each[rows]).movedim(-1, 1) for name, each in images.items()}
        return gathered | {name: torch.from_numpy(values) for name, values in columns.items()}

    def __len__(self) -> int:
        return len(self.samples)

    def with_captions(self, captions: Captions) -> "CachedSamples":
        """The same samples with captions that are not stored with them."""
        return CachedSamples(self.folder, captions, self.hints)

    def with_hints(self, hints: "CachedSamples") -> "CachedSamples":
        """The same samples with hints, as many."""
        return CachedSamples(self.folder, self._given, hints)

    def __reduce__(self) -> tuple[type["CachedSamples"], tuple[Path, Captions | None, "CachedSamples | None"]]:
        return CachedSamples, (self.folder, self._given, self.hints)


def _file_of(column: str) -> str:
    return f"column_{column}.npy"


def default_cache_dir() -> Path:
    """The folder of the environment's ``LANGEVIN_CACHE``, else ``~/.cache/langevin``."""
    return Path(os.environ.get("LANGEVIN_CACHE") or "~/.cache/langevin").expanduser()


def resolve_cache_dir(cache_dir: str | None) -> Path:
    """Return the folder of the option ``loader.cache_dir``, where null means the default."""
    return Path(cache_dir).expanduser() if cache_dir else default_cache_dir()


def open_or_build(
    cache_dir: Path, name: str, fingerprint: str, transform: Transform, load: Callable[[], SampleSet]
) -> CachedSamples:
    """Open the cache of these images, and build it first if there is none or it is damaged.

    Any number of processes may call this at once: one builds, the others wait for it. A build that fails leaves nothing
    behind. One that is interrupted or killed leaves the images that it has decoded, and the next resumes from them.

    Args:
        cache_dir: the folder of all caches.
        name: what the cache is called, for people.
        fingerprint: of the images' content.
        transform: what is done to each image; its ``repr`` belongs to the cache's key.
        load: lists the images; called only if they must be decoded.

    Raises:
        UserError: when an image cannot be decoded or has no usable caption, or `cache_dir` cannot be written.
        Interrupted: between two chunks of images, once a signal has come.
    """
    folder = folder_of(cache_dir, name, fingerprint, transform)

    def prepare() -> Callable[[Path], None]:
        images = load()
        captions = None if images.captions is None else Captions.pack(images.captions, images.lazy.name)
        return lambda building: _fill(building, images, captions, transform, folder.name.rpartition("-")[0])

    return open_or_make(folder, CachedSamples, prepare, "the image cache", "decodes the images")


def folder_of(cache_dir: Path, name: str, fingerprint: str, transform: Transform) -> Path:
    """The folder of a cache, see `open_or_build`; while it is built it has the suffix ".building"."""
    return folder_named(cache_dir, name, (_FORMAT, fingerprint, transform))


def _fill(building: Path, images: SampleSet, captions: Captions | None, transform: Transform, title: str) -> None:
    count = len(images.lazy)
    broken, small, chunks = _decode_all(building, images.lazy, transform, title)
    labels = np.full(count, -1, np.int64) if images.labels is None else images.labels
    columns = dict(images.columns)
    if broken:
        kept = usable(images, broken)
        _keep(building / "images.npy", kept)
        labels, count = labels[kept], len(kept)
        columns = {name: column[kept] for name, column in columns.items()}
        captions = None if captions is None else captions.kept(kept)
        chunks = list(_hashed(np.load(building / "images.npy", mmap_mode="r")))
    arrays = {"labels.npy": labels} | {_file_of(name): column for name, column in columns.items()}
    if captions is not None:
        arrays |= {f"{name}.npy": array for name, array in captions.arrays().items()}
    for name, array in arrays.items():
        np.save(building / name, array, allow_pickle=False)
    meta: dict[str, Any] = {
        "shape": (count, *transform.shape),
        "class_names": images.class_names,
        "columns": list(columns),
        "skipped": [images.lazy.name(index) for index in sorted(broken)],
        "broken": sorted(broken),
        "enlarged": len(small),
        "enlarged_names": [images.lazy.name(index) for index in small[:_NAMED]],
        "bytes": {name: (building / name).stat().st_size for name in ("images.npy", *arrays)},
    }
    dtype = np.dtype(transform.dtype)
    meta |= {} if dtype == np.uint8 else {"dtype": dtype.str}
    meta |= {} if captions is None else {"vocabulary": captions.vocabulary}
    digest = _digest(tuple(meta["shape"]), dtype, labels, images.class_names, columns, chunks)
    meta["digest"] = digest if captions is None else _with_captions(digest, captions)
    (building / "meta.json").write_text(json.dumps(meta))


class _Chunk(NamedTuple):
    """Some images that are decoded.

    Attributes:
        first: the first of them.
        digest: the sha256 of their pixels.
        small: those that are enlarged.
    """

    first: int
    digest: str
    small: list[int]

    def line(self) -> bytes:
        return f"{json.dumps(self)}\n".encode()


def _decode_all(
    building: Path, lazy: LazySamples, transform: Transform, title: str
) -> tuple[dict[int, Exception], list[int], list[str]]:
    """Fill images.npy with the transformed images, all but those that an earlier build has left there.

    The file `PROGRESS` has a `_Chunk` a line.

    Threads, not processes: Pillow decodes and resizes without the interpreter lock, so photographs decode on all cores,
    and a killed run leaves no child behind which still holds the cache's lock. The file is written, not mapped: a full
    disk then raises OSError, where touching a map of it would end the process with SIGBUS.

    Returns:
        what cannot be decoded, each with its error, its place left black; what is enlarged; and the sha256 of each
        chunk, in order.

    Raises:
        Interrupted: between two chunks, once a signal has come.
    """
    path, count, dtype = building / "images.npy", len(lazy), np.dtype(transform.dtype)
    size = int(np.prod(transform.shape)) * dtype.itemsize
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype.str, "fortran_order": False, "shape": (count, *transform.shape)}
    )
    header = buffer.getvalue()
    chunks = _finished(building, header, count, size)
    if not chunks:
        path.write_bytes(header)
    broken: dict[int, Exception] = {}

    def decode(first: int) -> int:
        indices = range(first, min(first + _CHUNK, count))
        block, small, unusable = lazy.block(indices, transform)
        broken.update(unusable)
        with open(path, "r+b") as file:
            file.seek(len(header) + first * size)
            file.write(block.data)
        chunk = _Chunk(first, hashlib.sha256(block.data).hexdigest(), small)
        if broken.keys().isdisjoint(indices):  # else another build looks at them again
            finished.write(chunk.line())  # in one piece at the end, whichever thread writes it
        chunks[first] = chunk
        return len(indices)

    executor = ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), lazy.threads))
    with (
        open(building / PROGRESS, "wb", buffering=0) as finished,
        progress_bar(total=count, desc=f"{lazy.doing} {title}", unit="sample") as progress,
    ):
        for first, chunk in chunks.items():
            finished.write(chunk.line())
            progress.update(min(_CHUNK, count - first))
        left = [first for first in range(0, count, _CHUNK) if first not in chunks]
        try:
            for done in as_completed([executor.submit(decode, first) for first in left]):
                progress.update(done.result())
                if received() is not None:
                    executor.shutdown(cancel_futures=True)
                    kept = sum(min(_CHUNK, count - first) for first in chunks)
                    raise Interrupted(
                        f"by {received()} with {kept:,} of {count:,} images of {title} {lazy.doing[:-3]}ed"
                    )
        finally:
            executor.shutdown(cancel_futures=True)
    ordered = [chunks[first] for first in range(0, count, _CHUNK)]
    return broken, [index for chunk in ordered for index in chunk.small], [chunk.digest for chunk in ordered]


def _finished(building: Path, header: bytes, count: int, size: int) -> dict[int, _Chunk]:
    """The chunks that an earlier build has finished, by their first image: their bytes must still be the ones it noted.

    A crash of the machine may have lost some, since nothing is flushed to the disk before the end.
    """
    found = {}
    with suppress(OSError, ValueError, TypeError), open(building / "images.npy", "rb") as file:
        if file.read(len(header)) == header:
            for line in (building / PROGRESS).read_text().splitlines():
                chunk = _Chunk(*json.loads(line))
                if chunk.first in range(0, count, _CHUNK):
                    file.seek(len(header) + chunk.first * size)
                    block = file.read(min(_CHUNK, count - chunk.first) * size)
                    if hashlib.sha256(block).hexdigest() == chunk.digest:
                        found[chunk.first] = chunk
    return found


def _hashed(images: NDArray[Any]) -> Iterator[str]:
    """The sha256 of each chunk."""
    for first in range(0, len(images), _CHUNK):
        yield hashlib.sha256(images[first : first + _CHUNK].tobytes()).hexdigest()


def _digest(
    shape: Sequence[int],
    dtype: np.dtype,
    labels: NDArray[np.int64],
    class_names: Sequence[str] | None,
    columns: Mapping[str, NDArray],
    chunks: Iterable[str],
) -> str:
    names = None if class_names is None else list(class_names)
    what = {"shape": list(shape), "class_names": names} | ({} if dtype == np.uint8 else {"dtype": dtype.str})
    whole = hashlib.sha256(json.dumps(what).encode())
    whole.update(labels.astype("<i8").tobytes())
    for chunk in chunks:
        whole.update(bytes.fromhex(chunk))
    for name, column in columns.items():
        whole.update(repr((name, column.dtype.str, column.shape)).encode() + np.ascontiguousarray(column).tobytes())
    return whole.hexdigest()


def _with_captions(digest: str, captions: Captions) -> str:
    return _sha256(f"{digest} {captions.digest}")


def _sha256(text: str) -> str:
    """The sha256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _keep(path: Path, kept: NDArray[np.int64]) -> None:
    """Reduce a .npy file of images to some of them."""
    images = np.load(path, mmap_mode="r")
    shorter = path.with_suffix(".kept")
    with open(shorter, "wb") as file:
        header = {"descr": images.dtype.str, "fortran_order": False, "shape": (len(kept), *images.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(kept), _CHUNK):
            file.write(images[kept[first : first + _CHUNK]].data)
    os.replace(shorter, path)
