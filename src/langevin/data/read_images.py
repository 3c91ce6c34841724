"""Images to be evaluated: samples or a reference set, from a folder, a zip or an .npz file."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langevin.data.cache import open_or_build, resolve_cache_dir
from langevin.data.image_folder import LabelledFiles
from langevin.data.pictures import NativeTransform
from langevin.errors import UserError


def read_images(
    path: str, option: str = "samples", cache_dir: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """Read images at their native size.

    A folder or zip is decoded into the cache once and memory-mapped afterwards; its labels come from its layout (see
    `langevin.data.image_folder.LabelledFiles`). An ``.npz`` holds ``arr_0``, uint8 (N, H, W, 1 or 3), and optionally
    ``arr_1``, N integer labels: the layout of ADM's sample files. A folder with a ``samples.npz``, such as sample.py
    leaves, means that file.

    Args:
        path: the folder, zip or .npz.
        option: the name of the option that gave `path`, for messages.
        cache_dir: the folder of the caches; None is the default.

    Returns:
        (N, H, W, C) uint8, possibly read-only, and (N,) int64 labels or None; C is 1 when the images are grey, else 3.

    Raises:
        UserError: when there is nothing at `path`, it holds no image, an image is broken or not of the first one's
            size, or an .npz holds something else.
    """
    samples = Path(path).expanduser() / "samples.npz"
    if path.endswith(".npz") or samples.is_file():
        return _read_npz(str(samples) if samples.is_file() else path, option)
    files = LabelledFiles(path, option)
    labels = None if files.labels is None else files.labels[0]
    images = files.image_set()
    try:
        transform = NativeTransform.like(images.pictures.open(0))
    except Exception as error:  # a broken file makes decoders raise anything
        raise UserError(f"{images.pictures.name(0)} cannot be used: {error}; replace or remove it") from error
    cache = open_or_build(resolve_cache_dir(cache_dir), "images", files.fingerprint(), transform, lambda: images)
    return cache.images, labels


def read_record(path: str) -> dict[str, Any] | None:
    """How the samples at a place that `read_images` has read were made, if sample.py has written them; else None."""
    samples = Path(path).expanduser() / "samples.npz"
    file = samples if samples.is_file() else Path(path).expanduser()
    if file.suffix != ".npz":
        return None
    with np.load(file, allow_pickle=False) as arrays:
        return json.loads(str(arrays["record"])) if "record" in arrays else None


def _read_npz(path: str, option: str) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    where = f"{option}={path}"
    wanted = "it must hold arr_0, uint8 images of shape (N, H, W, 1 or 3), and may hold arr_1, N integer labels"
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as file:
            if "arr_0" not in file:
                raise UserError(f"{where}: holds {', '.join(file.files) or 'nothing'}; {wanted}")
            images = file["arr_0"]
            labels = file.get("arr_1")
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{where}: there is no such file") from error
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{where}: cannot be read as an .npz file ({error}); {wanted}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or images.size == 0:
        raise UserError(f"{where}: its arr_0 is {images.dtype} of shape {images.shape}; {wanted}")
    if labels is None:
        return images, None
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise UserError(
            f"{where}: its arr_1 is {labels.dtype} of shape {labels.shape} for {len(images)} images; {wanted}"
        )
    return images, labels.astype(np.int64)
