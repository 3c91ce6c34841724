"""The disturbances of experiments/disturbance."""

from functools import partial

import numpy as np
import pytest
from experiments.disturbance.disturbances import (
    black_rectangles,
    contamination,
    gaussian_blur,
    gaussian_noise,
    salt_and_pepper,
    swirl,
)

from langevin.errors import UserError

OTHERS = np.arange(20, dtype=np.uint8).repeat(32 * 32 * 3).reshape(20, 32, 32, 3)
DISTURBANCES = [
    gaussian_noise,
    gaussian_blur,
    black_rectangles,
    swirl,
    salt_and_pepper,
    partial(contamination, others=OTHERS),
]


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(1, 255, (12, 32, 32, 3), dtype=np.uint8)


def seeded(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_level_0_changes_nothing(disturb, images):
    assert np.array_equal(disturb(images, 0.0, seeded()), images)


@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_images_stay_images_and_the_seed_decides(disturb, images):
    before = images.copy()
    first, again, other = (disturb(images, 0.8, seeded(seed)) for seed in (0, 0, 1))
    assert first.dtype == np.uint8
    assert first.shape == images.shape
    assert np.array_equal(images, before)
    assert not np.array_equal(first, images)
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (disturb in (gaussian_blur, swirl))  # which draw nothing


@pytest.mark.parametrize("disturb", DISTURBANCES)
def test_a_higher_level_disturbs_more(disturb, images):
    tiles = images[:, ::4, ::4].repeat(4, axis=1).repeat(4, axis=2)  # most pixels have equal neighbours
    errors = [np.square(disturb(tiles, level, seeded()) - tiles.astype(float)).mean() for level in (0.6, 0.8, 1.0)]
    assert 0 < errors[0] < errors[1] < errors[2]


def test_noise_alone_is_gaussian_and_fills_the_range(images):
    noise = gaussian_noise(images, 1.0, seeded()).astype(float)
    assert (noise.min((1, 2, 3)) == 0).all()
    assert (noise.max((1, 2, 3)) == 255).all()
    standard = (noise - noise.mean((1, 2, 3), keepdims=True)) / noise.std((1, 2, 3), keepdims=True)
    assert abs((standard**4).mean() - 3) < 0.15  # a uniform distribution has 1.8


def test_blur_spreads_a_point_by_the_paper_s_pixels():
    point = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    point[0, 32, 32, 0] = 255
    x = np.arange(64) - 32
    kernel = np.exp(-(x**2) / 2) / np.exp(-(x**2) / 2).sum()
    expected = 255 * np.outer(kernel, kernel)
    blurred = gaussian_blur(point, 1.0, seeded())
    assert np.abs(blurred[0, :, :, 0] - expected).max() <= 0.51
    assert (blurred[0, :, :, 1:] == 0).all()
    assert (blurred[1] == 0).all()
    # Half as large images are blurred by half as many pixels.
    x = np.arange(32) - 16
    kernel = np.exp(-(x**2) / (2 * 0.5**2))
    expected = 255 * np.outer(kernel, kernel) / kernel.sum() ** 2
    assert np.abs(gaussian_blur(point[:, 16:48, 16:48], 1.0, seeded())[0, :, :, 0] - expected).max() <= 0.51


def test_rectangles_are_black_and_of_their_size(images):
    black = (black_rectangles(images, 0.25, seeded()) == 0).all(-1)
    assert ((black.sum((1, 2)) >= 8 * 8) & (black.sum((1, 2)) <= 5 * 8 * 8)).all()
    assert (black.sum((1, 2)) > 8 * 8).any()
    # Rows and columns that hold black hold a whole side.
    assert all(black[i].sum(axis)[black[i].any(axis)].min() >= 8 for i in range(12) for axis in (0, 1))
    assert (black_rectangles(images, 1.0, seeded()) == 0).all()


def test_swirl_turns_the_middle_by_the_level_and_leaves_the_rim():
    side = 65
    y, x = np.mgrid[:side, :side] - side // 2
    angle = np.arctan2(y, x)
    wave = np.rint(127.5 + 127.5 * np.cos(2 * angle)).astype(np.uint8)[None, :, :, None]
    turned = swirl(wave, np.pi / 2, seeded())[0, :, :, 0].astype(float)
    radius = np.hypot(y, x)
    expected = 127.5 + 127.5 * np.cos(2 * (angle + np.pi / 2 * np.exp(-5 * radius / np.log(2) / (25 * 65 / 64))))
    ring = (radius > 4) & (radius < 20)  # in the very middle interpolation fails
    assert np.abs(turned - expected)[ring].max() < 8
    assert np.abs(turned - wave[0, :, :, 0])[radius > 28].max() <= 4


def test_salt_and_pepper_sets_a_share_of_whole_pixels():
    grey = np.full((4, 64, 64, 3), 100, dtype=np.uint8)
    result = salt_and_pepper(grey, 0.3, seeded())
    black, white = ((result == level).all(-1) for level in (0, 255))
    assert abs(black.mean() - 0.15) < 0.01
    assert abs(white.mean() - 0.15) < 0.01
    assert (result[~(black | white)] == 100).all()


def test_contamination_replaces_just_so_many_by_different_others(images):
    quarter, most = (contamination(images, level, seeded(), OTHERS) for level in (0.25, 0.75))
    replaced = [(result == result[:, :1, :1, :1]).all((1, 2, 3)) for result in (quarter, most)]
    assert [each.sum() for each in replaced] == [3, 9]
    assert (replaced[0] <= replaced[1]).all()  # the same ones, and more
    assert len(set(most[replaced[1], 0, 0, 0])) == 9
    assert (most[~replaced[1]] == images[~replaced[1]]).all()
    with pytest.raises(UserError, match=r"9 images are to be replaced.* only 8"):
        contamination(images, 0.75, seeded(), OTHERS[:8])
