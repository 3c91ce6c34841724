"""Stanford Cars in the layout of its official development kit."""

import functools
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from langevin.data.archive import Archive, Folder, open_archive
from langevin.data.images import WHITE, Box, ImageFiles
from langevin.data.source import FileSource, SampleSet
from langevin.errors import UserError

_META = "devkit/cars_meta.mat"
_TRAIN = "devkit/cars_train_annos.mat"
_MAKES = ("AM General", "Aston Martin", "Land Rover")  # of two words
_BODIES = {
    **{word: word.lower() for word in ("Sedan", "Coupe", "Convertible", "Hatchback", "Wagon", "Minivan", "Van")},
    **dict.fromkeys(("Cab", "SuperCab", "Pickup"), "pickup truck"),
    "SUV": "SUV",
}
_TEST = ("cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat")


class StanfordCars(FileSource):
    """RGB photographs of cars in 196 classes: 8,144 for training and, where they are there, 8,041 for testing.

    The test split is used when both ``cars_test/`` and ``cars_test_annos_withlabels.mat`` are there.

    Args:
        path: the folder with ``cars_train/`` and ``devkit/``, or one that holds it as ``stanford_cars/``, or an
            uncompressed tar or a zip of either. Its official download no longer exists, so it must be given.
        image_size: side in pixels.
        crop: crop each photograph to the car's annotated box first.
        flip: mirror images at random in training.
        train_on_test: train on the images of both splits, as generative models of cars often are; none is held out.
        background: the colour behind transparent pixels: red, green and blue, 0 to 255.
        skip_broken: leave out the images that cannot be decoded, instead of refusing the data.
    """

    def __init__(
        self,
        path: str | None,
        image_size: int = 64,
        crop: bool = True,
        flip: bool = True,
        train_on_test: bool = False,
        background: Sequence[Annotated[int, Ge(0), Le(255)]] = WHITE,
        skip_broken: bool = False,
    ) -> None:
        super().__init__(image_size, 3, flip, background, skip_broken)
        self.path = path
        self.crop = crop
        self.train_on_test = train_on_test

    def check(self) -> None:
        """Look for the annotations and the training images."""
        archive, root = self._archive
        if not any(name.startswith(f"{root}cars_train/") for name in archive.names):
            raise UserError(f"data.path={self.path}: there is no image in {root}cars_train/")
        if self.train_on_test and not self._has_test:
            raise UserError(
                f"data.train_on_test=true: {self.path} has no test images, or no {_TEST[0]} with their classes; get "
                "them, or set data.train_on_test=false"
            )

    def splits(self) -> tuple[str, ...]:
        """Train, and test where its images and their classes are there and are not trained on."""
        return ("train", "test") if self._has_test and not self.train_on_test else ("train",)

    def fingerprint(self, split: str) -> str:
        """Sizes and times of change of the images and annotations."""
        archive, root = self._archive
        folders = tuple(f"{root}cars_{part}/" for part in self._parts(split))
        images = (name for name in archive.names if name.startswith(folders))
        annotations = (self._annotations(part) for part in self._parts(split))
        return f"crop={self.crop} {self._decoding()} {archive.fingerprint((root + _META, *annotations, *images))}"

    def phrases(self, class_name: str) -> tuple[str, ...]:
        """The make and body type, each of them alone, and the name without its year.

        A name has the make first and its body type last, such as "Audi S4 Sedan 2012"; some have none, as "Audi R8".
        """
        name = re.sub(r" \d{4}$", "", class_name)
        make = next((each for each in _MAKES if name.startswith(f"{each} ")), name.partition(" ")[0])
        body = next((_BODIES[word] for word in reversed(name.split()) if word in _BODIES), "car")
        return tuple(dict.fromkeys((f"{make} {body}", body, f"{make} car", name)))

    def load(self, split: str) -> SampleSet:
        """Read the annotations.

        Raises:
            UserError: when they cannot be read, or name an image that is not there.
        """
        archive, root = self._archive
        names = tuple(str(name) for name in self._read(root + _META, "class_names"))
        cars = [car for part in self._parts(split) for car in self._cars(part, len(names))]
        boxes = [box for _, box, _ in cars] if self.crop else None
        labels = np.array([label for *_, label in cars], np.int64)
        lazy_images = ImageFiles(archive, [file for file, *_ in cars], boxes, self.background)
        return SampleSet(lazy_images, labels, names, self.skip_broken)

    def left_out(self) -> Counter[str]:
        """What is not a regular file; an image that the annotations do not name is not part of the data."""
        return self._archive[0].left_out

    @property
    def _has_test(self) -> bool:
        archive, root = self._archive
        return bool(self._annotations("test")) and any(name.startswith(f"{root}cars_test/") for name in archive.names)

    def _parts(self, split: str) -> tuple[str, ...]:
        """The official splits that make up one of ours."""
        return ("train", "test") if self.train_on_test else (split,)

    def _cars(self, split: str, num_classes: int) -> list[tuple[str, Box, int]]:
        """File, box and class of each image of an official split."""
        archive, root = self._archive
        annotations = self._annotations(split)
        cars = np.atleast_1d(self._read(annotations, "annotations"))
        fields = {"fname", "class", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"}
        if not len(cars) or not fields <= set(cars.dtype.names or ()):
            raise UserError(f"data.path={self.path}: {annotations} has no files, classes and boxes in it")
        files = [f"{root}cars_{split}/{name}" for name in cars["fname"]]
        twice = next((file for file, number in Counter(files).items() if number > 1), None)
        if twice is not None:
            raise UserError(f"data.path={self.path}: {annotations} names {twice} twice")
        there = set(archive.names)
        missing = next((file for file in files if file not in there), None)
        if missing is not None:
            raise UserError(f"data.path={self.path}: {annotations} names {missing}, which is not there")
        # MATLAB counts from 1, and its boxes include their last pixel.
        try:
            boxes = [
                (int(car["bbox_x1"]) - 1, int(car["bbox_y1"]) - 1, int(car["bbox_x2"]), int(car["bbox_y2"]))
                for car in cars
            ]
            labels = cars["class"].astype(np.int64) - 1
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"data.path={self.path}: {annotations} has a box or class that is not a number") from error
        if labels.min() < 0 or labels.max() >= num_classes:
            raise UserError(f"data.path={self.path}: {annotations} has classes outside of 1..{num_classes}")
        return list(zip(files, boxes, labels.tolist(), strict=True))

    @functools.cached_property
    def _archive(self) -> tuple[Archive, str]:
        """The archive, and the name of the official root in it ('' or 'stanford_cars/')."""
        if self.path is None:
            raise UserError(
                "data.path=null: the official download of Stanford Cars no longer exists; get a copy (cars_train/ and "
                "devkit/) and give its folder, or a tar of it, as data.path=FOLDER_OR_TAR"
            )
        archive = open_archive(self.path, "data.path")
        for root in ("", "stanford_cars/"):
            if archive.exists(root + _TRAIN) and archive.exists(root + _META):
                # Only the data set's own folder is listed, for its parent may hold the whole disk.
                return (Folder(Path(archive.path) / root), "") if isinstance(archive, Folder) else (archive, root)
        raise UserError(
            f"data.path={self.path}: neither {_TRAIN} and {_META} nor stanford_cars/ with both is in it; "
            "it must be laid out as the official release: cars_train/*.jpg, devkit/*.mat"
        )

    def _annotations(self, split: str) -> str:
        """The name of the split's annotations, '' when there are none."""
        archive, root = self._archive
        names = (_TRAIN,) if split == "train" else _TEST
        return next((root + name for name in names if archive.exists(root + name)), "")

    def _read(self, name: str, variable: str) -> NDArray[Any]:
        from scipy.io import loadmat

        try:
            return loadmat(io.BytesIO(self._archive[0].read(name)), squeeze_me=True)[variable]
        except Exception as error:  # a broken .mat file makes scipy raise anything
            raise UserError(f"data.path={self.path}: cannot read {variable} from {name} ({error!r})") from error
