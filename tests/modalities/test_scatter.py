import numpy as np
import pytest

from langevin.modalities.scatter import limit_of, panels, scatter

EMPTY = np.empty((0, 2), np.float32)


def ink(points, limit=1.0, side=40):
    """How much darker an image is than that of no points: (side, side), at least 0."""
    return scatter(EMPTY, limit, side)[:, :, 0].astype(int) - scatter(np.asarray(points, float), limit, side)[:, :, 0]


def place(points, **how):
    """Row and column of the middle of all that is drawn."""
    drawn = ink(points, **how)
    rows, columns = np.indices(drawn.shape)
    return (drawn * rows).sum() / drawn.sum(), (drawn * columns).sum() / drawn.sum()


@pytest.mark.parametrize(
    ("point", "row", "column"),
    [((0.525, 0.525), 9, 30), ((-0.475, 0.525), 9, 10), ((0.525, -0.475), 29, 30), ((0.55, -0.45), 28.5, 30.5)],
)
def test_a_point_lands_at_its_place_with_up_above(point, row, column):
    """Pixel 30 of 40 shows 0.5 to 0.55 of [-1, 1]."""
    assert place([point]) == pytest.approx((row, column), abs=0.02)
    assert place([point], side=80) == pytest.approx((2 * row + 0.5, 2 * column + 0.5), abs=0.02)
    assert place([np.multiply(point, 3)], limit=3.0) == pytest.approx((row, column), abs=0.02)


def test_a_point_is_a_small_disc():
    drawn = ink([(0.525, 0.525)])
    assert drawn[9, 30] == drawn.max() > 100
    assert drawn[8, 30] == drawn[10, 30] == drawn[9, 29] == drawn[9, 31] > 20
    away = np.hypot(*(np.indices(drawn.shape) - np.array([9, 30])[:, None, None]))
    assert not drawn[away > 3].any()


def test_symmetric_points_give_a_symmetric_image():
    points = np.random.default_rng(0).normal(size=(300, 2)) / 3
    points = np.concatenate([points * signs for signs in ((1, 1), (-1, 1), (1, -1), (-1, -1))])
    image = scatter(points, 1.0, 60).astype(int)
    for turned in (image[::-1], image[:, ::-1]):
        assert np.abs(image - turned).max() <= 1, "but for rounding"


def test_more_points_are_darker_and_single_ones_still_show():
    drawn = ink([(-0.5, 0.5)] * 500 + [(0.5, 0.5)] * 20 + [(0.5, -0.5)])
    crowd, few, one = drawn[9:11, 9:11].max(), drawn[9:11, 29:31].max(), drawn[29:31, 29:31].max()
    assert crowd > few + 50 > one + 100 > 110


@pytest.mark.parametrize("point", [(1.01, 0.5), (-1.01, 0.5), (0.5, 1.01), (0.5, -40), (np.nan, 0.5), (0.5, np.inf)])
def test_points_outside_of_the_limits_are_not_drawn(point):
    assert not ink([point]).any()
    assert np.array_equal(ink([point, (0.25, 0.25)]), ink([(0.25, 0.25)]))


@pytest.mark.parametrize("corner", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_a_point_at_the_edge_is_not_drawn_at_the_opposite_one(corner):
    row, column = (slice(0, 4) if sign > 0 else slice(-4, None) for sign in (corner[1], -corner[0]))
    drawn = ink([corner])
    assert drawn[row, column].any()
    assert drawn.sum() == drawn[row, column].sum()


def test_is_repeatable_and_leaves_the_points_alone():
    points = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32)
    before = points.copy()
    assert np.array_equal(scatter(points), scatter(points))
    assert np.array_equal(points, before)
    assert scatter(points).shape == (320, 320, 3)
    assert scatter(points).dtype == np.uint8


def test_of_more_coordinates_the_first_two_are_drawn():
    points = np.random.default_rng(0).normal(size=(50, 5))
    assert np.array_equal(scatter(points, side=40), scatter(points[:, :2], side=40))


def test_numbers_are_drawn_as_a_histogram():
    values = np.repeat([-0.8, 0.1, 5.0, np.nan], [20, 10, 500, 1])[:, None]
    drawn = (ink(values) > 20).sum(0)  # bars 5 pixels wide
    assert drawn.tolist() == [36] * 5 + [0] * 15 + [18] * 5 + [0] * 15


@pytest.mark.parametrize(
    ("reach", "limit"), [(0.9, 1.0), (1.0, 1.0), (1.1, 1.2), (1.3, 1.5), (0.021, 0.03), (85, 100), (0, 1.0)]
)
def test_a_limit_is_the_next_round_number(reach, limit):
    assert limit_of(np.array([[0.0, -reach], [np.nan, np.inf]])) == pytest.approx(limit)


def test_a_stray_point_does_not_decide_the_limit():
    points = np.random.default_rng(0).uniform(-0.9, 0.9, (5000, 2))
    points[7] = 1e4
    assert limit_of(points) == 1.0
    assert np.array_equal(scatter(points, side=40), scatter(points, 1.0, 40))


def test_panels_stand_side_by_side_with_the_limit_of_the_last():
    frames = [80 * np.random.default_rng(0).normal(size=(50, 2)), np.array([[0.5, 0.5]]), np.array([[0.8, -0.2]])]
    image = panels(frames, side=80)
    assert image.shape == (80, 3 * 80 + 2 * 2, 3)
    for place, frame in zip((0, 82, 164), frames, strict=True):
        assert np.array_equal(image[:, place : place + 80], scatter(frame, 0.8, 80))
    assert (image[:, 80:82] == 255).all()
    assert np.array_equal(panels(frames[:1], 3.0, 80), scatter(frames[0], 3.0, 80))
