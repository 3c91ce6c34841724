"""The user's own images: a folder or a zip, with or without labels."""

import functools
import json
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from langevin.data.archive import Archive, open_archive
from langevin.data.pictures import FilePictures
from langevin.data.source import ImageSet, ImageSource
from langevin.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class LabelledFiles:
    """The images of a folder or zip and the labels which the layout gives them.

    A ``dataset.json`` beside the images decides when there is one: ``{"labels": [[name, class_index], ...]}`` names the
    class of every image, ``{"labels": null}`` says that there are none. Without it, the top-level folders are the
    classes in alphabetical order, and images which all lie in one folder are unlabelled.

    Args:
        path: the folder, zip or uncompressed tar.
        option: the name of the option that gave `path`, for messages.

    Raises:
        UserError: when there is nothing at `path`, it cannot be opened, or holds no image.
    """

    def __init__(self, path: str, option: str) -> None:
        self._where = f"{option}={path}"
        self.archive = open_archive(path, option)
        self.files = tuple(name for name in self.archive.names if name.lower().endswith(SUFFIXES))
        if not self.files:
            raise UserError(
                f"{self._where}: holds no image (looked for {', '.join(SUFFIXES)} in it and its subfolders)"
            )
        root = _common_folder(self.files)
        self._json = next((name for name in ("dataset.json", f"{root}dataset.json") if self.archive.exists(name)), None)
        self._root = root if self._json is None else self._json.removesuffix("dataset.json")

    def fingerprint(self) -> str:
        """Digest of the images' and labels' content."""
        return self.archive.fingerprint(self.files if self._json is None else (*self.files, self._json))

    @functools.cached_property
    def labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        """(N,) class indices and the classes' names, or None when the images are unlabelled.

        Raises:
            UserError: when ``dataset.json`` is not of the layout above or leaves an image out, or when some images lie
                in class folders and others do not.
        """
        folders = [name.removeprefix(self._root).rpartition("/")[0].partition("/")[0] for name in self.files]
        if self._json is not None:
            return self._labels_from_json(self.archive, self._json, folders)
        if not any(folders):
            return None
        if not all(folders):
            stray = self.files[folders.index("")]
            raise UserError(
                f"{self._where}: some images lie in class folders, but {stray} does not: "
                "put every image into a class folder, or all of them into one folder"
            )
        names = tuple(sorted(set(folders)))
        index = {name: label for label, name in enumerate(names)}
        return np.array([index[folder] for folder in folders], np.int64), names

    def image_set(self) -> ImageSet:
        """The images and labels, ready to be decoded."""
        labels, names = self.labels or (None, None)
        return ImageSet(FilePictures(self.archive, self.files), labels, names)

    def _labels_from_json(
        self, archive: Archive, name: str, folders: Sequence[str]
    ) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        wanted = 'it must hold {"labels": [[name, class_index], ...]} or {"labels": null}'
        try:
            entries = json.loads(archive.read(name))["labels"]
            if entries is None:
                return None
            classes = {self._root + file: label for file, label in entries}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._where}: cannot read {name} ({error!r}); {wanted}") from error
        wrong = next((label for label in classes.values() if type(label) is not int or label < 0), None)
        if wrong is not None:
            raise UserError(f"{self._where}: {name} has the class index {wrong!r}, not an integer from 0 up; {wanted}")
        left_out = next((file for file in self.files if file not in classes), None)
        if left_out is not None:
            raise UserError(f"{self._where}: {name} gives no class to {left_out}; label every image, or remove {name}")
        labels = [classes[file] for file in self.files]
        return np.array(labels, np.int64), _names_of_classes(labels, folders)


class ImageFolder(ImageSource):
    """PNG, JPEG and WebP images of any size below a folder or in a zip; all of them are for training.

    Labels come from a ``dataset.json`` (as the StyleGAN and EDM tools write it), else from class folders, else there
    are none: see `LabelledFiles`.

    Args:
        path: the folder or zip.
        image_size: side in pixels; images are cropped to the central square, then resized.
        channels: 3 (RGB) or 1 (grey).
        flip: mirror images at random in training.
    """

    def __init__(self, path: str | None, image_size: int, channels: int = 3, flip: bool = True) -> None:
        super().__init__(image_size=image_size, channels=channels, flip=flip)
        self.path = path

    @functools.cached_property
    def _files(self) -> LabelledFiles:
        if self.path is None:
            raise UserError("data.path=null: give the folder or zip of your images, data.path=FOLDER_OR_ZIP")
        return LabelledFiles(self.path, "data.path")

    def check(self) -> None:
        """List the images and their labels."""
        _ = self._files.labels

    def splits(self) -> tuple[str, ...]:
        """Train only."""
        return ("train",)

    def fingerprint(self, split: str) -> str:
        """Names and sizes of the images, with their checksums (zip) or times of change (folder)."""
        return self._files.fingerprint()

    def load(self, split: str) -> ImageSet:
        """The images and their labels."""
        return self._files.image_set()


def _common_folder(files: Sequence[str]) -> str:
    """The folder, with its slash, in which all files lie ('' for the top)."""
    folders = [PurePosixPath(file).parts[:-1] for file in (min(files), max(files))]  # all others sort between them
    common = []
    for first, last in zip(*folders, strict=False):
        if first != last:
            break
        common.append(f"{first}/")
    return "".join(common)


def _names_of_classes(labels: Sequence[int], folders: Sequence[str]) -> tuple[str, ...]:
    """Names for classes 0..max: their folders where classes and folders agree one to one, else their indices."""
    pairs = dict(zip(labels, folders, strict=True))
    count = max(labels) + 1
    agree = len(set(zip(labels, folders, strict=True))) == len(set(folders)) == count and all(folders)
    return tuple(pairs[label] if agree else str(label) for label in range(count))
