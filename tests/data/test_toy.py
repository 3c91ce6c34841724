import math

import numpy as np
import pytest
import torch

from langevin.data.module import DataModule
from langevin.data.toy import DISTRIBUTIONS, HALF_SIDE, MOON_NOISE, MOON_SCALE, RADIUS, Toy

N = 200_000


def drawn(name, number=N, seed=3, stream=0):
    return DISTRIBUTIONS[name](number, seed, stream)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_types_and_shapes(name):
    points, labels = drawn(name, 7)
    assert points.dtype == np.float32
    assert points.shape == (7, 2)
    assert labels is None or (labels.dtype == np.int64 and labels.shape == (7,))
    assert drawn(name, 0)[0].shape == (0, 2)


COVARIANCES = {
    "eight_gaussians": [[1 / 4, 0], [0, 1 / 4]],
    # The coordinates of one moon are uncorrelated; the means are (-1/2, 2/pi - 1/4) and the opposite.
    "moons": MOON_SCALE**2
    * np.array(
        [
            [1 / 2 + 1 / 4 + MOON_NOISE**2, 1 / 8 - 1 / math.pi],
            [1 / 8 - 1 / math.pi, 1 / 2 - (2 / math.pi) ** 2 + (2 / math.pi - 1 / 4) ** 2 + MOON_NOISE**2],
        ]
    ),
    "checkerboard": [[1 / 4, HALF_SIDE**2 / 16], [HALF_SIDE**2 / 16, 1 / 4]],
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_mean_and_covariance_are_the_stated_ones(name):
    points, labels = drawn(name)
    # A standard error is below 0.0012 here.
    np.testing.assert_allclose(points.mean(0), 0, atol=0.005)
    np.testing.assert_allclose(np.cov(points.T), COVARIANCES[name], atol=0.004)
    assert np.trace(COVARIANCES[name]) == pytest.approx(2 * 0.5**2, rel=1e-12)
    if labels is not None:
        counts = np.bincount(labels)
        np.testing.assert_allclose(counts / N, 1 / len(counts), atol=0.005)


def test_eight_gaussians_stand_on_a_circle():
    points, labels = drawn("eight_gaussians")
    assert set(labels) == set(range(8))
    centres = [(RADIUS * math.cos(k * math.pi / 4), RADIUS * math.sin(k * math.pi / 4)) for k in range(8)]
    squares = np.square(points - np.array(centres)[labels]).sum(1) / (RADIUS / 8) ** 2
    for bound in (0.5, 2, 8):  # a squared distance in the plane is exponential
        assert np.mean(squares > bound) == pytest.approx(math.exp(-bound / 2), abs=0.005)


def test_moons_are_half_circles_with_noise():
    points, labels = drawn("moons")
    points = points / MOON_SCALE + (1 / 2, 1 / 4)
    for label, centre, side in ((0, (0, 0), 1), (1, (1, 1 / 2), -1)):
        gap = points[labels == label] - centre
        radius = np.hypot(*gap.T)
        # Of noise s on a radius of 1: the mean of its square is 1 + 2 s^2.
        assert np.mean(radius**2) == pytest.approx(1 + 2 * MOON_NOISE**2, abs=0.005)
        assert radius.std() == pytest.approx(MOON_NOISE, abs=0.002)
        assert np.mean(side * gap[:, 1] > -4 * MOON_NOISE) > 0.999
        assert np.mean(side * gap[:, 1]) == pytest.approx(2 / math.pi, abs=0.005)


def test_checkerboard_is_uniform_on_eight_squares():
    points, labels = drawn("checkerboard")
    assert labels is None
    place = (points / HALF_SIDE + 1) * 2
    assert place.min() >= 0
    assert place.max() <= 4
    squares = np.minimum(place.astype(int), 3)
    assert np.all(squares.sum(1) % 2 == 0)
    counts = np.bincount(4 * squares[:, 0] + squares[:, 1], minlength=16)
    np.testing.assert_allclose(counts[counts > 0] / N, 1 / 8, atol=0.005)
    assert np.count_nonzero(counts) == 8
    within = place - squares
    np.testing.assert_allclose(np.cov(within.T), [[1 / 12, 0], [0, 1 / 12]], atol=0.002)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_same_seed_and_stream_give_the_same_bits_and_others_other_points(name):
    (points, labels), (again, labels_again) = drawn(name, 500), drawn(name, 500)
    assert np.array_equal(points, again)
    assert np.array_equal(labels, labels_again)
    for seed, stream in ((3, 1), (4, 0), (0, 3), (3 + 2**32, 0)):
        other, _ = drawn(name, 500, seed, stream)
        assert not {*map(tuple, points)} & {*map(tuple, other)}


@pytest.mark.parametrize(
    ("name", "point", "label"),
    [
        ("eight_gaussians", (0.06560089, -0.6914494), 6),
        ("moons", (-0.3766989, 0.00959618), 1),
        ("checkerboard", (0.59878206, -0.08705083), None),
    ],
)
def test_the_points_are_those_of_the_first_version(name, point, label):
    """A data set must not change under the models that were trained on it."""
    points, labels = drawn(name, 2)
    assert points[0] == pytest.approx(point, abs=1e-7)
    assert label is None or labels[0] == label


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_source_of_them(name, tmp_path):
    module = DataModule(Toy(name, 100), 16, cache_dir=str(tmp_path))
    module.prepare_data()
    points, _ = drawn(name, 100, 0)
    np.testing.assert_array_equal(module.train_set.samples, points)
    assert len(module.test_set) == 10
    assert module.spec.shape == (2,)
    assert module.spec.levels is None
    assert module.num_classes == {"eight_gaussians": 8, "moons": 2, "checkerboard": None}[name]
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert torch.equal(batch["x"], torch.from_numpy(points)[batch["index"]])
    assert batch["x"].dtype == torch.float32
