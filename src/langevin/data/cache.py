"""Images decoded, cropped and resized once, then memory-mapped by every process and every later run."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from langevin.data.pictures import Pictures, Transform
from langevin.data.source import ImageSet, usable
from langevin.errors import UserError

_FORMAT = 1
_CHUNK = 64  # images decoded and written together: a unit of work and of progress


class CachedImages:
    """A finished cache: images on disk, read through a memory map.

    Pickling carries the folder's name alone, so a data-loading worker maps the file again instead of copying it.

    Args:
        folder: holds ``images.npy``, ``labels.npy`` and ``meta.json``.

    Attributes:
        images: (N, H, W, C) uint8, read-only.
        labels: (N,) int64, -1 for unlabelled.
        class_names: a name for each class, or None when unlabelled.
        skipped: the names of the images that were left out because they cannot be decoded.

    Raises:
        ValueError: when a file is missing, cut short, or not what ``meta.json`` says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            meta = json.loads((folder / "meta.json").read_bytes())
            sizes = {name: (folder / name).stat().st_size for name in meta["bytes"]}
            if sizes != meta["bytes"]:
                raise ValueError(f"its files are of {sizes} bytes, not {meta['bytes']}")
            # As a plain array: np.memmap runs Python code at each indexing.
            self.images: NDArray[np.uint8] = np.asarray(np.load(folder / "images.npy", mmap_mode="r"))
            self.labels: NDArray[np.int64] = np.load(folder / "labels.npy")
            names = meta["class_names"]
            shape = tuple(meta["shape"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder}: not a whole cache ({error})") from error
        if self.images.shape != shape or self.images.dtype != np.uint8 or self.labels.shape != shape[:1]:
            raise ValueError(f"{folder}: arrays of {self.images.shape} and {self.labels.shape}, not {shape}")
        self.class_names: tuple[str, ...] | None = None if names is None else tuple(names)
        self.skipped: tuple[str, ...] = tuple(meta.get("skipped", ()))

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[type["CachedImages"], tuple[Path]]:
        return CachedImages, (self.folder,)


def default_cache_dir() -> Path:
    """The folder of the environment's ``LANGEVIN_CACHE``, else ``~/.cache/langevin``."""
    return Path(os.environ.get("LANGEVIN_CACHE") or "~/.cache/langevin").expanduser()


def resolve_cache_dir(cache_dir: str | None) -> Path:
    """Return the folder of the option ``loader.cache_dir``, where null means the default."""
    return Path(cache_dir).expanduser() if cache_dir else default_cache_dir()


def open_or_build(
    cache_dir: Path, name: str, fingerprint: str, transform: Transform, load: Callable[[], ImageSet]
) -> CachedImages:
    """Open the cache of these images, and build it first if there is none or it is damaged.

    Any number of processes may call this at once: one builds, the others wait for it. A build that fails or is killed
    leaves no cache behind.

    Args:
        cache_dir: the folder of all caches.
        name: what the cache is called, for people.
        fingerprint: of the images' content.
        transform: what is done to each image; its ``repr`` belongs to the cache's key.
        load: lists the images; called only if they must be decoded.

    Raises:
        UserError: when an image cannot be decoded, or `cache_dir` cannot be written or is full.
    """
    key = hashlib.sha256(repr((_FORMAT, fingerprint, transform)).encode()).hexdigest()[:16]
    folder = cache_dir / f"{name}-{key}"
    try:
        return CachedImages(folder)  # without the lock: a finished cache may lie on a read-only disk
    except ValueError:
        pass
    with _report_write_errors(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache_dir / f"{folder.name}.lock")
        lock.acquire()
    try:
        try:
            return CachedImages(folder)  # another process built it while this one waited
        except ValueError:
            pass
        images = load()
        with _report_write_errors(cache_dir):
            # Under the lock nobody else builds this cache, so what lies there was left by a build that was killed.
            for left_over in (folder, *cache_dir.glob(f"{folder.name}.building-*")):
                if left_over.exists():
                    shutil.rmtree(left_over)
            _build(folder, images, transform)
        return CachedImages(folder)
    finally:
        lock.release()


@contextmanager
def _report_write_errors(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"loader.cache_dir={cache_dir}: the image cache cannot be written ({error}); "
            "make room, or give a folder on another disk with loader.cache_dir=FOLDER"
        ) from error


def _build(folder: Path, images: ImageSet, transform: Transform) -> None:
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}.building-"))
    try:
        building.chmod(0o755)  # mkdtemp's 0700 would shut colleagues out of a shared cache
        count = len(images.pictures)
        broken = _decode_all(building / "images.npy", images.pictures, transform, folder.name.rpartition("-")[0])
        labels = np.full(count, -1, np.int64) if images.labels is None else images.labels
        if broken:
            kept = usable(images, broken)
            _keep(building / "images.npy", kept)
            labels, count = labels[kept], len(kept)
        np.save(building / "labels.npy", labels)
        meta: dict[str, Any] = {
            "shape": (count, *transform.shape),
            "class_names": images.class_names,
            "skipped": [images.pictures.name(index) for index in sorted(broken)],
            "bytes": {name: (building / name).stat().st_size for name in ("images.npy", "labels.npy")},
        }
        (building / "meta.json").write_text(json.dumps(meta))
        for path in building.iterdir():
            _flush(path)  # else a crash of the machine could leave a cache of the right size with wrong content
        os.rename(building, folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _decode_all(path: Path, pictures: Pictures, transform: Transform, title: str) -> dict[int, Exception]:
    """Fill a .npy file with the transformed images; what cannot be decoded is returned, and its place left black.

    Threads, not processes: Pillow decodes and resizes without the interpreter lock, so photographs decode on all cores,
    and a killed run leaves no child behind which still holds the cache's lock. The file is written, not mapped: a full
    disk then raises OSError, where touching a map of it would end the process with SIGBUS.
    """
    count = len(pictures)
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, *transform.shape)}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
    size = int(np.prod(transform.shape))
    broken: dict[int, Exception] = {}

    def decode(first: int) -> int:
        indices = range(first, min(first + _CHUNK, count))
        block = np.zeros((len(indices), *transform.shape), np.uint8)
        for index in indices:
            try:
                block[index - first] = transform(pictures.open(index))
            except (
                Exception
            ) as error:  # a broken file makes decoders raise anything: OSError, SyntaxError, struct.error
                broken[index] = error
        with open(path, "r+b") as file:
            file.seek(start + first * size)
            file.write(block.data)
        return len(indices)

    executor = ThreadPoolExecutor(max_workers=min(len(os.sched_getaffinity(0)), 16))
    try:
        # Once a second, for a batch job's log keeps every line.
        with tqdm(total=count, desc=f"decoding {title}", unit=" images", mininterval=1, leave=False) as progress:
            for done in as_completed([executor.submit(decode, first) for first in range(0, count, _CHUNK)]):
                progress.update(done.result())
    finally:
        executor.shutdown(cancel_futures=True)
    return broken


def _keep(path: Path, kept: NDArray[np.int64]) -> None:
    """Reduce a .npy file of images to some of them."""
    images = np.load(path, mmap_mode="r")
    shorter = path.with_suffix(".kept")
    with open(shorter, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), *images.shape[1:])}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, len(kept), _CHUNK):
            file.write(images[kept[first : first + _CHUNK]].data)
    os.replace(shorter, path)


def _flush(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
