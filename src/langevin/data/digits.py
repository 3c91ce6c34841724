"""scikit-learn's bundled 8x8 digits: no download, trains in seconds."""

import numpy as np

from langevin.data.images import ArrayImages
from langevin.data.source import ImageSource, SampleSet

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Digits(ImageSource):
    """1,797 grey handwritten digits in 10 classes; the first 1,500 are for training, the other 297 for testing.

    The stored levels 0..16 become 0..255 by rounding ``level * 255 / 16``.

    Args:
        image_size: side in pixels; 8 is native, others are resized to.
        flip: mirror images at random in training; a mirrored digit is not a digit, so leave it off.
    """

    _TRAIN = 1500

    def __init__(self, image_size: int = 8, flip: bool = False) -> None:
        super().__init__(image_size=image_size, channels=1, flip=flip)

    def check(self) -> None:
        """Always passes: the images come with scikit-learn."""

    def splits(self) -> tuple[str, ...]:
        """Train and test."""
        return ("train", "test")

    def fingerprint(self, split: str) -> str:
        """The images never change."""
        return split

    def phrases(self, class_name: str) -> tuple[str, ...]:
        """The digit as a word."""
        return (_WORDS[int(class_name)],)

    def load(self, split: str) -> SampleSet:
        """Take the split from scikit-learn."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        part = slice(None, self._TRAIN) if split == "train" else slice(self._TRAIN, None)
        pixels = np.rint(bunch.images[part] * (255 / 16)).astype(np.uint8)
        labels = bunch.target[part].astype(np.int64)
        return SampleSet(ArrayImages(pixels), labels, tuple(str(digit) for digit in range(10)))
