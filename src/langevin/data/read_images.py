"""Given samples, to be evaluated or compared with: from a folder, a zip or an .npz file."""

import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from langevin.config.migration import migrated
from langevin.data.archive import counted
from langevin.data.cache import CachedSamples, open_or_build, resolve_cache_dir
from langevin.data.image_folder import LabelledFiles
from langevin.data.images import LazySamples, NativeTransform, is_grey
from langevin.data.source import SampleSet, usable
from langevin.errors import UserError

PROMPTS = "prompts"
"""In an .npz of samples: what each was made of, a JSON list of as many texts."""
_DEFLATED = 1032  # bytes that one byte of a zip unfolds to at most
_MAX_CLASS = 2**31 - 1
_WANTED = (
    "it must hold arr_0, uint8 images of shape (N, H, W, 1 or 3) or float32 vectors of shape (N, D), and may hold "
    "arr_1, N integer labels"
)
_UNREADABLE = (
    OSError,
    ValueError,
    AttributeError,
    EOFError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_images(
    path: str, option: str = "samples", cache_dir: str | None = None, hints: bool = False
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Read samples: images at their native size, or vectors.

    A folder or zip is decoded into the cache once and memory-mapped afterwards; its labels come from its layout (see
    `langevin.data.image_folder.LabelledFiles`). Those of a ``dataset.json`` stay the ids in it, since a few
    samples need not cover every class. Transparent pixels are composited on white.

    An ``.npz`` holds ``arr_0``, uint8 (N, H, W, 1 or 3) or float32 (N, D), and optionally ``arr_1``, N integer labels:
    the layout of ADM's sample files. A folder with a ``samples.npz``, such as langevin sample leaves, means that file.

    Args:
        path: the folder, zip or .npz.
        option: the name of the option that gave `path`, for messages.
        cache_dir: the folder of the caches; None is the default.
        hints: whether they are hints: of a folder or zip with hints beside images these are read, and not the images.

    Returns:
        (N, H, W, C) uint8 or (N, D) float32, possibly read-only, and (N,) int64 labels or None; C is 1 when all images
        are grey, else 3.

    Raises:
        UserError: when there is nothing at `path`, it holds no image, images are broken or not of one size, or an .npz
            holds something else.
    """
    if (npz := _npz_of(path)) is not None:
        return _read_npz(npz, option)
    files = LabelledFiles(path, option, hints_first=hints)
    labels = None if files.labels is None else files.labels[0]
    if files.class_ids is not None:
        if max(files.class_ids) > _MAX_CLASS:
            raise UserError(f"{option}={path}: class id {max(files.class_ids)}; allowed: 0 to {_MAX_CLASS}")
        labels = np.array(files.class_ids, np.int64)
    return _decoded(files, resolve_cache_dir(cache_dir)).samples, labels


def left_out(path: str, option: str = "samples") -> str:
    """The files that `read_images` skips at a path, in words; '' where there are none."""
    return "" if _npz_of(path) is not None else counted(LabelledFiles(path, option).left_out)


def read_record(path: str) -> dict[str, Any] | None:
    """How the samples at a place that `read_images` has read were made; None unless langevin sample wrote them."""
    npz = _npz_of(path)
    if npz is None:
        return None
    with _opened(npz, "samples") as arrays:
        if "record" not in arrays:
            return None
        try:
            record = migrated(json.loads(str(_array(arrays, "record"))))
        except _UNREADABLE as error:
            raise UserError(
                f"samples={npz}: its record of how the samples were made cannot be read ({error})"
            ) from error
    if not isinstance(record, dict) or not {"model", "samples"} <= record.keys():
        raise UserError(f"samples={npz}: its record does not describe how the samples were made; remove the record")
    return record


def read_prompts_of(path: str, number: int) -> list[str] | None:
    """What the samples at a place that `read_images` has read were made of; None where that is not recorded there.

    Args:
        path: see `read_images`.
        number: how many samples there are.

    Raises:
        UserError: when it cannot be read, or these are not as many texts.
    """
    npz = _npz_of(path)
    if npz is None:
        return None
    with _opened(npz, "samples") as arrays:
        if PROMPTS not in arrays:
            return None
        try:
            found = json.loads(str(_array(arrays, PROMPTS)))
        except _UNREADABLE as error:
            raise UserError(f"samples={npz}: its {PROMPTS} cannot be read ({error})") from error
    if not isinstance(found, list) or len(found) != number or not all(isinstance(text, str) for text in found):
        raise UserError(f"samples={npz}: its {PROMPTS} are no list of {number} texts, one a sample")
    return found


class _InColorError(Exception):
    """Images that were assumed grey are not."""


def _decoded(files: LabelledFiles, cache_dir: Path) -> CachedSamples:
    """The decoded images: in colour if any of them is, in any order of their names."""
    images = files.image_set()
    fingerprint = f"upon white {files.fingerprint()}"
    transform = NativeTransform.like(_first_usable(images))

    def load() -> SampleSet:
        if transform.shape[-1] == 1 and _any_in_color(images.lazy):
            raise _InColorError
        return images

    try:
        return open_or_build(cache_dir, "images", fingerprint, transform, load)
    except _InColorError:  # met only where there is no cache of grey ones, so a set of grey ones is looked through once
        in_color = NativeTransform((*transform.shape[:2], 3))
        return open_or_build(cache_dir, "images", fingerprint, in_color, lambda: images)


def _first_usable(images: SampleSet) -> Image.Image:
    broken: dict[int, Exception] = {}
    for index in range(len(images.lazy)):
        try:
            return images.lazy.open(index)
        except Exception as error:  # a broken file makes decoders raise anything
            broken[index] = error
    usable(images, broken)
    raise AssertionError("images of which none can be used were not refused")


def _any_in_color(lazy_images: LazySamples) -> bool:
    for index in range(len(lazy_images)):
        try:
            if not is_grey(lazy_images.open(index)):
                return True
        except Exception:  # building the cache names all of the broken ones
            continue
    return False


def _npz_of(path: str) -> str | None:
    """The .npz that `path` means: itself, or the samples.npz in a folder; None for a folder or zip of images."""
    samples = Path(path).expanduser() / "samples.npz"
    return str(samples) if samples.is_file() else path if path.endswith(".npz") else None


def _read_npz(path: str, option: str) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    where = f"{option}={path}"
    with _opened(path, option) as file:
        if "arr_0" not in file:
            raise UserError(f"{where}: holds {', '.join(file.files) or 'nothing'}; {_WANTED}")
        try:
            images = _array(file, "arr_0")
            labels = _array(file, "arr_1") if "arr_1" in file else None
        except _UNREADABLE as error:
            raise UserError(f"{where}: cannot be read as an .npz file ({error}); {_WANTED}") from error
    are_images = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] in (1, 3)
    are_vectors = images.dtype == np.float32 and images.ndim == 2
    if not (are_images or are_vectors) or images.size == 0:
        raise UserError(f"{where}: its arr_0 is {images.dtype} of shape {images.shape}; {_WANTED}")
    if are_vectors and not np.isfinite(images).all():
        raise UserError(f"{where}: its arr_0 holds numbers that are not finite")
    if labels is None:
        return images, None
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"{where}: its arr_1 is {labels.dtype} of shape {labels.shape} for {len(images)} images; {_WANTED}"
        )
    if labels.min() < 0 or labels.max() > _MAX_CLASS:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise UserError(f"{where}: its arr_1 has the label {wrong}; allowed: 0 to {_MAX_CLASS}")
    return images, labels.astype(np.int64)


def _opened(path: str, option: str) -> np.lib.npyio.NpzFile:
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"{option}={path}: there is no such file")
    if not place.is_file():
        raise UserError(f"{option}={path}: is not a regular file; {_WANTED}")
    try:
        if not zipfile.is_zipfile(place):
            raise ValueError("it is not a complete zip of arrays")
        return np.load(place, allow_pickle=False)
    except _UNREADABLE as error:
        raise UserError(f"{option}={path}: cannot be read as an .npz file ({error}); {_WANTED}") from error


def _array(file: np.lib.npyio.NpzFile, name: str) -> NDArray[Any]:
    """An array of an .npz, allocating no more memory than the file can hold.

    Raises:
        ValueError: when its header claims more or less than there is.
    """
    assert file.zip is not None
    info = file.zip.getinfo(f"{name}.npy")
    with file.zip.open(info) as stored:
        version = np.lib.format.read_magic(stored)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"{name} is stored in version {version} of the format")
        shape, _, dtype = read[version](stored)
        start = stored.tell()
    claimed = start + math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    if claimed != info.file_size or claimed > max(info.compress_size, 1) * _DEFLATED:
        raise ValueError(f"{name} claims to be of shape {shape}, but has not as many bytes")
    return file[name]
