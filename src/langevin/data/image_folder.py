"""The user's own images: a folder or a zip, with or without labels."""

import functools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from langevin.data.archive import file_kind, holding, open_archive
from langevin.data.hints import UNREAD, HintFiles, image_of, stem_of, told_apart
from langevin.data.images import (
    SUFFIXES,
    WHITE,
    Color,
    ImageFiles,
    PadTransform,
    SquareTransform,
    StretchTransform,
    Transform,
)
from langevin.data.source import FileSource, Hints, SampleSet
from langevin.errors import UserError
from langevin.images import HINT

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
}
"""The splits by what their folders are called; folders that all have such names are not classes."""
_MAX_JSON_BYTES = 2**30


class LabelledFiles:
    """The images of a folder or zip and the labels which the layout gives them.

    A ``dataset.json`` beside the images decides when there is one: ``{"labels": [[name, class_id], ...]}`` names the
    class of every image, ``{"labels": null}`` means that there are none. Without it, the top-level folders are the
    classes in alphabetical order, and images which all lie in one folder are unlabelled.

    Args:
        path: the folder, zip or uncompressed tar.
        option: the name of the option that gave `path`, for messages.
        background: the colour behind transparent pixels.
        reads_hints: whether the hints beside the images are read, see `langevin.data.hints`; else they are left out.
        hints_first: whether to take hints in place of images, where there are any.

    Attributes:
        archive: the folder or file on disk.
        files: the images' names, in order.
        hints: those of the hints.

    Raises:
        UserError: when there is nothing at `path`, it cannot be opened, or holds no image.
    """

    def __init__(
        self,
        path: str,
        option: str,
        background: Color = WHITE,
        reads_hints: bool = False,
        hints_first: bool = False,
    ) -> None:
        self._path, self._option = path, option
        self._where = f"{option}={path}"
        self._background = background
        self.archive = open_archive(path, option)
        self._reads_hints = reads_hints
        images, self.hints = told_apart(self.archive.names)
        self.files = self.hints if hints_first and self.hints else images
        if not self.files:
            beside = f"; {self.hints[0]} is the hint of an image" if self.hints else holding(self.archive)
            raise UserError(
                f"{self._where}: holds no image (looked for {', '.join(SUFFIXES)} in it and its subfolders){beside}"
            )
        root = _common_folder(self.files)
        self._json = next((name for name in ("dataset.json", f"{root}dataset.json") if self.archive.exists(name)), None)
        self._root = root if self._json is None else self._json.removesuffix("dataset.json")

    def fingerprint(self) -> str:
        """Digest of the images' and labels' content."""
        return self.archive.fingerprint(self.files if self._json is None else (*self.files, self._json))

    @functools.cached_property
    def left_out(self) -> Counter[str]:
        """How many of what lies beside the images and is not read, by what it is.

        Raises:
            UserError: when a link leads nowhere which may have been a folder of images.
        """
        images, left_out = {*self.files, *self.hints}, Counter(self.archive.left_out)
        if not self._reads_hints and (unread := set(self.hints).difference(self.files)):
            left_out[UNREAD] = len(unread)
        if unused := len(self._classes or {}) - len(self.class_ids or ()):
            left_out["unused label"] = unused
        for name in self.archive.names:
            if name in images or name == self._json:
                continue
            if not PurePosixPath(name).suffix and self.archive.is_dangling(name):
                raise UserError(f"{self._where}: the link {name} leads nowhere; restore its target, or remove it")
            left_out[file_kind(name)] += 1
        return left_out

    @functools.cached_property
    def labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        """(N,) class indices from 0 up without a gap, and the classes' names; None when the images are unlabelled.

        The distinct class ids of a ``dataset.json`` are numbered in their order. A class is named by its folder where
        classes and folders agree one to one, else by its id.

        Raises:
            UserError: when ``dataset.json`` is not of the layout above or leaves an image out, when some images lie in
                class folders and others do not, or when the folders are splits.
        """
        if self._json is not None:
            if self.class_ids is None:
                return None
            ids = sorted(set(self.class_ids))
            label_of = {class_id: label for label, class_id in enumerate(ids)}
            return np.array([label_of[class_id] for class_id in self.class_ids], np.int64), self._names_of(ids)
        folders = self._folders
        if not any(folders):
            return None
        if not all(folders):
            stray = self.files[folders.index("")]
            raise UserError(
                f"{self._where}: some images lie in class folders, but {stray} does not: "
                "put every image into a class folder, or all of them into one folder"
            )
        names = tuple(sorted(set(folders)))
        self._refuse_splits(names)
        index = {name: label for label, name in enumerate(names)}
        return np.array([index[folder] for folder in folders], np.int64), names

    @functools.cached_property
    def class_ids(self) -> tuple[int, ...] | None:
        """The class id of each image as ``dataset.json`` gives it; None where there is none, or its labels are null.

        Raises:
            UserError: when it is not of the layout above or leaves an image out.
        """
        classes = self._classes
        if classes is None:
            return None
        # A hint has the class of its image, which it may stand for.
        of_stem = {stem_of(name): class_id for name, class_id in classes.items()} if self.files is self.hints else {}
        found = [classes.get(file, of_stem.get(image_of(file))) for file in self.files]
        left_out = next((file for file, class_id in zip(self.files, found, strict=True) if class_id is None), None)
        if left_out is not None:
            raise UserError(
                f"{self._where}: {self._json} gives no class to {left_out}; label every image, or remove {self._json}"
            )
        return tuple(class_id for class_id in found if class_id is not None)

    @functools.cached_property
    def _classes(self) -> dict[str, int] | None:
        """The class id of each name in ``dataset.json``."""
        if self._json is None:
            return None
        name, wanted = self._json, 'it must hold {"labels": [[name, class_id], ...]} or {"labels": null}'
        try:
            entries = json.loads(self.archive.read(name, _MAX_JSON_BYTES))["labels"]
            pairs = None if entries is None else [(file, class_id) for file, class_id in entries]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{self._where}: cannot read {name} ({error!r}); {wanted}") from error
        if pairs is None:
            return None
        classes: dict[str, Any] = {}
        for file, class_id in pairs:
            if type(class_id) is not int or class_id < 0:
                raise UserError(
                    f"{self._where}: {name} gives {file} the class id {_brief(class_id)}, not an integer from 0 up; "
                    f"{wanted}"
                )
            key = self._root + str(file).replace("\\", "/").removeprefix("./")
            if classes.setdefault(key, class_id) != class_id:
                raise UserError(f"{self._where}: {name} gives {file} two classes, {classes[key]} and {class_id}")
        return classes

    def image_set(self, skip_broken: bool | None = None) -> SampleSet:
        """The images and labels, ready to be decoded."""
        labels, names = self.labels or (None, None)
        lazy_images = ImageFiles(self.archive, self.files, background=self._background)
        return SampleSet(lazy_images, labels, names, skip_broken)

    def hint_files(self) -> HintFiles:
        """The hint of each image.

        Raises:
            UserError: when an image has none, or there is one of no image.
        """
        return HintFiles.pair(self.archive, self._where, self.files, self.hints, self.files, self._background)

    @functools.cached_property
    def _folders(self) -> list[str]:
        """The top-level folder of each image, '' for none."""
        return [name.removeprefix(self._root).rpartition("/")[0].partition("/")[0] for name in self.files]

    def _names_of(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Names of the classes with these ids: their folders where both agree one to one, else the ids."""
        assert self.class_ids is not None
        pairs = set(zip(self.class_ids, self._folders, strict=True))
        agree = len(pairs) == len(set(self._folders)) == len(ids) and all(self._folders)
        return tuple(folder for _, folder in sorted(pairs)) if agree else tuple(str(class_id) for class_id in ids)

    def _refuse_splits(self, folders: Sequence[str]) -> None:
        if len(folders) < 2 or not {folder.lower() for folder in folders} <= SPLITS.keys():
            return
        train = next((folder for folder in folders if folder.lower().startswith("train")), folders[0])
        inside = self._root + train
        way = (
            f"give one of them, as {self._option}={self._path.rstrip('/')}/{inside}"
            if self.archive.path.is_dir()
            else f"unpack it and give the folder {inside}, or pack that alone"
        )
        raise UserError(f"{self._where}: its folders {', '.join(folders)} are splits, not classes; {way}")


class ImageFolder(FileSource):
    """PNG, JPEG, WebP, BMP, GIF and TIFF images of any size below a folder or in a zip; all of them are for training.

    Labels come from a ``dataset.json`` (as the StyleGAN and EDM tools write it), else from class folders, else there
    are none: see `LabelledFiles`. Hints are files beside images, of the same size, whose name ends with ".control"
    before its suffix. They pass what their images pass, and are stored as grey levels.

    Args:
        path: the folder or zip.
        image_size: side in pixels.
        channels: 3 (RGB) or 1 (grey).
        flip: mirror images at random in training.
        background: the colour behind transparent pixels, and beside padded images: red, green and blue, 0 to 255.
        skip_broken: leave out the images that cannot be decoded, instead of refusing the data.
        resize: how an image that is no square becomes one: "crop" takes its centre, "pad" adds background, "stretch"
            changes its proportions.
        hints: whether the hints beside the images are read; handed in.
    """

    columns = frozenset({"label", HINT})

    def __init__(
        self,
        path: str | None,
        image_size: int,
        channels: int = 3,
        flip: bool = True,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        skip_broken: bool = False,
        resize: Literal["crop", "pad", "stretch"] = "crop",
        hints: bool = False,
    ) -> None:
        super().__init__(image_size, channels, flip, background, skip_broken)
        self.path = path
        self.resize = resize
        self.reads_hints = hints

    @property
    def transform(self) -> Transform:
        """See `Source`."""
        return self._transform(self.channels)

    def _transform(self, channels: int) -> Transform:
        of_option: dict[str, Transform] = {
            "crop": SquareTransform(self.image_size, channels),
            "pad": PadTransform(self.image_size, channels, self.background),
            "stretch": StretchTransform(self.image_size, channels),
        }
        return of_option[self.resize]

    @functools.cached_property
    def _files(self) -> LabelledFiles:
        if self.path is None:
            raise UserError("data.path=null: give the folder or zip of your images, data.path=FOLDER_OR_ZIP")
        return LabelledFiles(self.path, "data.path", self.background, self.reads_hints)

    def check(self) -> None:
        """List the images, their labels and, where they are read, their hints."""
        _ = self._files.labels, self._files.left_out
        if self.reads_hints:
            self._files.hint_files()

    def splits(self) -> tuple[str, ...]:
        """Train only."""
        return ("train",)

    def fingerprint(self, split: str) -> str:
        """Names and sizes of the images, with their checksums (zip) or times of change (folder)."""
        return f"{self._decoding()} {self._files.fingerprint()}"

    def load(self, split: str) -> SampleSet:
        """The images and their labels."""
        return self._files.image_set(self.skip_broken)

    def hints_of(self, split: str) -> Hints | None:
        """See `Source`: the files beside the images."""
        if not self.reads_hints:
            return None
        fingerprint = f"{self.fingerprint(split)} {self._files.archive.fingerprint(self._files.hints)}"
        return Hints(fingerprint, self._transform(channels=1), self._files.hint_files)

    def left_out(self) -> Counter[str]:
        """What lies beside the images."""
        return self._files.left_out


def _common_folder(files: Sequence[str]) -> str:
    """The folder, with its slash, in which all files lie ('' for the top)."""
    folders = [PurePosixPath(file).parts[:-1] for file in (min(files), max(files))]  # all others sort between them
    common = []
    for first, last in zip(*folders, strict=False):
        if first != last:
            break
        common.append(f"{first}/")
    return "".join(common)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
