"""Distributions in the plane, of mean 0 and a standard deviation of 0.5 a coordinate: data to test models on.

Images in [-1, 1] have about that standard deviation, and EDM's preconditioning assumes it.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from langevin.data.images import ArrayRows, AsStored, Transform
from langevin.data.source import SampleSet, Source
from langevin.modalities.vector import VectorModality

Drawn = tuple[NDArray[np.float32], NDArray[np.int64] | None]
"""Points (N, 2), and their classes (N,) where they have some."""

RADIUS = 4 / math.sqrt(33)
"""Of the circle of eight Gaussians; each has an eighth of it as its standard deviation s: r^2 / 2 + s^2 = 1 / 4."""
MOON_NOISE = 0.1
"""The standard deviation of the noise about a moon of radius 1."""
MOON_SCALE = 0.5 / math.sqrt((21 / 16 - 1 / math.pi) / 2 + MOON_NOISE**2)
"""What moons of radius 1 are scaled by.

Their variances are 3/4 + noise^2 across and 9/16 - 1/pi + noise^2 upwards.
"""
HALF_SIDE = math.sqrt(3) / 2
"""Half the side of the checkerboard: each coordinate is uniform, of variance half_side^2 / 3."""


def eight_gaussians(number: int, seed: int, stream: int = 0) -> Drawn:
    """Eight equal Gaussians on a circle; the class is the component, counter-clockwise from the right.

    Args:
        number: N, how many points.
        seed: at least 0 and below 2^64.
        stream: at least 0 and below 2^64; points of other streams are independent, as for training and test.

    Returns:
        Points and classes 0 to 7; independent and in random order.
    """
    rng = _generator(seed, stream)
    label = rng.integers(8, size=number)
    angle = label * (math.pi / 4)
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centres + RADIUS / 8 * rng.standard_normal((number, 2))).astype(np.float32), label


def moons(number: int, seed: int, stream: int = 0) -> Drawn:
    """Two half circles that reach into each other, with Gaussian noise; the class is 0 for the upper one, else 1.

    The noise is a tenth of their radius. Arguments and results as of `eight_gaussians`.
    """
    rng = _generator(seed, stream)
    label = rng.integers(2, size=number)
    angle = math.pi * rng.random(number)
    across = np.where(label == 0, np.cos(angle), 1 - np.cos(angle)) - 1 / 2
    up = np.where(label == 0, np.sin(angle), 1 / 2 - np.sin(angle)) - 1 / 4
    points = np.stack([across, up], axis=1) + MOON_NOISE * rng.standard_normal((number, 2))
    return (MOON_SCALE * points).astype(np.float32), label


def checkerboard(number: int, seed: int, stream: int = 0) -> Drawn:
    """Uniform on eight of the sixteen squares of a board, that in the lower left corner among them; no classes.

    Its coordinates have the covariance ``half_side^2 / 16``. Arguments and results as of `eight_gaussians`.
    """
    rng = _generator(seed, stream)
    column, pair = rng.integers(4, size=number), rng.integers(2, size=number)
    corner = np.stack([column, 2 * pair + column % 2], axis=1)
    return (HALF_SIDE * ((corner + rng.random((number, 2))) / 2 - 1)).astype(np.float32), None


DISTRIBUTIONS: dict[str, Callable[[int, int, int], Drawn]] = {
    "eight_gaussians": eight_gaussians,
    "moons": moons,
    "checkerboard": checkerboard,
}
"""The distributions by their name in a config."""
CLASSES = {"eight_gaussians": 8, "moons": 2}
"""How many classes those of them have that have some."""


class Toy(Source):
    """Points of a known distribution in the plane, the same for every run; a tenth as many again for testing.

    Args:
        distribution: its name.
        number: how many training points.
    """

    modality = VectorModality()

    def __init__(
        self,
        distribution: Literal["eight_gaussians", "moons", "checkerboard"] = "eight_gaussians",
        number: Annotated[int, Ge(100)] = 100_000,
    ) -> None:
        self.distribution = distribution
        self.number = number

    @property
    def transform(self) -> Transform:
        """See `Source`."""
        return AsStored((2,))

    def check(self) -> None:
        """Always passes: the points are drawn."""

    def splits(self) -> tuple[str, ...]:
        """Train and test."""
        return ("train", "test")

    def fingerprint(self, split: str) -> str:
        """What is drawn."""
        return f"{self.distribution} {self.number} {split}"

    def load(self, split: str) -> SampleSet:
        """Draw the split."""
        number, stream = (self.number, 0) if split == "train" else (self.number // 10, 1)
        points, labels = DISTRIBUTIONS[self.distribution](number, 0, stream)
        names = None if labels is None else tuple(map(str, range(CLASSES[self.distribution])))
        return SampleSet(ArrayRows(points), labels, names)


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
