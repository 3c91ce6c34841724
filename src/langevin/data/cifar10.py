"""CIFAR-10: the official release, or the same images as files."""

import contextlib
import functools
import http.client
import os
import pickle
import socket
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le
from filelock import FileLock

from langevin.data.cache import default_cache_dir
from langevin.data.image_folder import LabelledFiles
from langevin.data.images import WHITE, ArrayImages
from langevin.data.source import FileSource, SampleSet
from langevin.errors import UserError

_BATCHES = "cifar-10-batches-py"
_WAIT_SECONDS = 30  # for an answer of the server: on a node without network a connection would hang for minutes


class CIFAR10(FileSource):
    """60,000 RGB images of 32x32 pixels in 10 classes: 50,000 for training, 10,000 for testing.

    Args:
        path: null downloads the official archive; else one of: the folder ``cifar-10-batches-py`` or the one that
            holds it, the official ``cifar-10-python.tar.gz``, or the training images as a folder or zip of files (laid
            out as for `image_folder`).
        test_path: folder or zip of the test images, for a `path` of image files; null for none. The official release
            brings its own.
        download_dir: where the official archive is downloaded to; null is ``cifar10`` in the default cache folder.
        image_size: side in pixels; 32 is native.
        flip: mirror images at random in training.
        background: for image files, the colour behind transparent pixels: red, green and blue, 0 to 255.
        skip_broken: leave out the image files that cannot be decoded, instead of refusing the data.
    """

    def __init__(
        self,
        path: str | None = None,
        test_path: str | None = None,
        download_dir: str | None = None,
        image_size: int = 32,
        flip: bool = True,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(image_size, 3, flip, background, skip_broken)
        self.path = path
        self.test_path = test_path
        self.download_dir = download_dir

    def check(self) -> None:
        """Look for the files of the given paths; a download is tried only when its images are needed."""
        if self._official:
            if self.test_path is not None:
                raise UserError(
                    f"data.test_path={self.test_path}: the official release brings its own test images; "
                    "leave data.test_path out, or give the training images as files with data.path=FOLDER_OR_ZIP"
                )
            place = None if self.path is None else Path(self.path).expanduser()
            if place is not None and not (place.is_file() or place.is_dir()):
                raise UserError(f"data.path={self.path}: there is no such file")
            return
        for files in self._files.values():
            _ = files.labels, files.left_out

    def splits(self) -> tuple[str, ...]:
        """Train, and test where there are test images."""
        return ("train", "test") if self._official else tuple(self._files)

    def fingerprint(self, split: str) -> str:
        """The official release has one content, which `load` verifies by checksum: all ways to it share a cache."""
        if self._official:
            return f"official {split}"
        return f"{self._decoding()} {self._files[split].fingerprint()}"

    def load(self, split: str) -> SampleSet:
        """Download the official release if need be, verify its checksums and read it; or list the files.

        Raises:
            UserError: when the download fails, or a file is missing or damaged.
        """
        if not self._official:
            return self._files[split].image_set(self.skip_broken)
        with self._official_root() as root:
            return _read_official(root, split, self.path)

    def left_out(self) -> Counter[str] | None:
        """What lies beside the images, of both splits; None for the official release."""
        return None if self._official else sum((files.left_out for files in self._files.values()), Counter())

    @functools.cached_property
    def _files(self) -> dict[str, LabelledFiles]:
        paths = {"train": ("data.path", self.path), "test": ("data.test_path", self.test_path)}
        return {
            split: LabelledFiles(path, option, self.background)
            for split, (option, path) in paths.items()
            if path is not None
        }

    @functools.cached_property
    def _official(self) -> bool:
        if self.path is None or self.path.endswith((".tar.gz", ".tgz")):
            return True
        place = Path(self.path).expanduser()
        return (place / _BATCHES).is_dir() or (place / "data_batch_1").is_file()

    @contextlib.contextmanager
    def _official_root(self) -> Iterator[Path]:
        """The folder which holds ``cifar-10-batches-py``."""
        if self.path is None:
            yield self._download()
            return
        place = Path(self.path).expanduser()
        if place.is_dir():
            # Its own parent if the user named the batches' folder itself; torchvision insists on the official name.
            yield place if (place / _BATCHES).is_dir() else _with_official_name(place, self.path)
            return
        with tempfile.TemporaryDirectory() as folder:
            _unpack(place, self.path, folder)
            yield Path(folder)

    def _download(self) -> Path:
        from torchvision import datasets

        root = Path(self.download_dir).expanduser() if self.download_dir else default_cache_dir() / "cifar10"
        patience = socket.getdefaulttimeout()
        try:
            root.mkdir(parents=True, exist_ok=True)
            socket.setdefaulttimeout(_WAIT_SECONDS)
            with FileLock(root / "download.lock"):
                datasets.CIFAR10(str(root), download=True)  # downloads nothing when the files are there and complete
        except (OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
            raise UserError(
                f"data.path=null: CIFAR-10 is not in {root} and could not be downloaded from "
                f"{datasets.CIFAR10.url} ({error}); give data.path=FILE_OR_FOLDER: the official "
                "cifar-10-python.tar.gz, the folder cifar-10-batches-py, or a folder or zip of the training images"
            ) from error
        finally:
            socket.setdefaulttimeout(patience)
        return root


def _with_official_name(place: Path, path: str) -> Path:
    if place.resolve().name != _BATCHES:
        raise UserError(f"data.path={path}: holds the official batches, but must be called {_BATCHES} or hold it")
    return place.resolve().parent


def _unpack(place: Path, path: str, folder: str) -> None:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    if not check_integrity(str(place), datasets.CIFAR10.tgz_md5):
        raise UserError(
            f"data.path={path}: this is not the official {datasets.CIFAR10.filename}, or it is damaged "
            f"(its MD5 checksum must be {datasets.CIFAR10.tgz_md5})"
        )
    with tarfile.open(place, "r:gz") as tar:
        tar.extractall(folder, filter="data")


def _read_official(root: Path, split: str, path: str | None) -> SampleSet:
    from torchvision import datasets

    try:
        data = datasets.CIFAR10(
            str(root), train=split == "train"
        )  # verifies every file's checksum before it unpickles it
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"data.path={path}: {os.path.join(root, _BATCHES)} is incomplete or damaged ({error}); "
            "unpack the official archive again, or give it as data.path=cifar-10-python.tar.gz"
        ) from error
    return SampleSet(ArrayImages(data.data), np.array(data.targets, np.int64), tuple(data.classes))
