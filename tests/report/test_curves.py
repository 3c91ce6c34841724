import math
from array import array

import numpy as np
import pytest

from langevin.logged import Series
from langevin.report.curves import seconds_of, thinned


def series(points):
    return Series([(array("q", [step for step, _ in points]), array("d", [value for _, value in points]))])


def test_a_short_curve_is_as_it_was_logged():
    points = [(10 * step, math.sin(step)) for step in range(1, 1001)]
    curve = thinned(series(points), 1000)
    assert list(zip(curve.x, curve.y, strict=True)) == points
    assert (curve.means, curve.rows, curve.bad) == (None, 1000, 0)


@pytest.mark.parametrize("number", [1001, 4321, 200_000])
def test_a_long_curve_keeps_its_ends_and_its_extremes(number):
    generator = np.random.default_rng(number)
    values = np.cumsum(generator.normal(size=number))
    values[generator.integers(number, size=20)] *= 50
    points = list(enumerate(values.tolist(), start=1))
    curve = thinned(series(points), 1000)
    assert 500 <= len(curve.x) <= 1002
    assert curve.x == sorted(set(curve.x))
    assert {*zip(curve.x, curve.y, strict=True)} <= {*points}
    assert (curve.x[0], curve.x[-1]) == (1, number)
    edges = [number * i // 500 for i in range(500)]
    drawn = {*zip(curve.x, curve.y, strict=True)}
    for extreme in (np.minimum, np.maximum):
        assert set(extreme.reduceat(values, edges).tolist()) <= {value for _, value in drawn}
    x, y, counts = map(np.array, curve.means)
    np.testing.assert_allclose(y, np.add.reduceat(values, edges) / counts, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(x, np.add.reduceat(np.arange(1, number + 1), edges) / counts, rtol=1e-12)
    assert counts.sum() == number


@pytest.mark.parametrize("number", [50, 5000])
def test_what_is_not_finite_is_a_gap_and_is_counted(number):
    points = [(step, float(step)) for step in range(1, number + 1)]
    for step, value in ((7, math.nan), (8, math.inf), (number, -math.inf)):
        points[step - 1] = (step, value)
    curve = thinned(series(points), 100)
    drawn = dict(zip(curve.x, curve.y, strict=True))
    assert curve.bad == 3
    assert curve.bad_steps == [7, 8, number]
    assert drawn[7] is None
    assert drawn[number] is None
    assert None not in [value for step, value in drawn.items() if step not in curve.bad_steps]
    if curve.means:
        assert sum(curve.means[2]) == number - 3
        assert all(map(math.isfinite, curve.means[1]))


def test_a_curve_of_nothing_finite():
    curve = thinned(series([(step, math.nan) for step in range(3000)]), 1000)
    assert set(curve.y) == {None}
    assert curve.means == ([], [], [])
    assert curve.bad == 3000
    assert len(curve.bad_steps) == 20


def test_values_whose_sum_no_number_can_hold():
    curve = thinned(series([(step, 1.7e308) for step in range(3000)]), 1000)
    assert set(curve.y) == {1.7e308}
    assert all(mean == pytest.approx(1.7e308) for mean in curve.means[1])


def test_the_time_that_training_took():
    steady = [(step, 200.0) for step in range(10, 101, 10)]
    assert seconds_of(series(steady), 50) == pytest.approx(100 * 50 / 200)
    slower = [(50, 100.0), (60, math.nan), (100, 25.0)]
    assert seconds_of(series(slower), 2) == pytest.approx(50 * 2 / 100 + 50 * 2 / 25)
    assert seconds_of(series([(1, math.nan), (2, 0.0)]), 2) is None
    assert seconds_of(Series(), 2) is None
