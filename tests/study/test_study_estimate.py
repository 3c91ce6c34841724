"""The numbers of a study against scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from langevin.study.compare import Row, differences_of
from langevin.study.estimate import Estimate, estimate, paired, verdict


@pytest.mark.parametrize("number", [2, 3, 10])
def test_the_interval_of_a_mean(number):
    values = np.random.default_rng(number).normal(5, 2, number)
    found = estimate(list(values))
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.number == number
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)


def test_the_interval_of_a_paired_difference():
    draw = np.random.default_rng(0)
    before = dict(enumerate(draw.normal(0, 1, 5)))
    after = {seed: value + draw.normal(0.3, 0.1) for seed, value in before.items()}
    found = paired([before], [{**after, 9: 1e9}])
    interval = stats.ttest_rel(list(after.values()), list(before.values())).confidence_interval(0.95)
    assert found.number == 5
    assert (found.low, found.high) == pytest.approx(tuple(interval), rel=1e-9)
    unpaired = stats.ttest_ind(list(after.values()), list(before.values())).confidence_interval(0.95)
    assert found.high - found.low < (unpaired[1] - unpaired[0]) / 5, "what the seeds have in common is gone"


def test_ninety_five_of_a_hundred_intervals_hold_the_mean():
    draw = np.random.default_rng(1)
    found = [estimate(list(draw.normal(1, 3, 3))) for _ in range(4000)]
    share = np.mean([each.low <= 1 <= each.high for each in found])
    assert abs(share - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "nothing measured"),
        ([1.0], "one seed: no interval"),
        ([0.3, 0.1 + 0.2], "no spread: no interval"),
        ([1.0, math.nan], "not finite"),
        ([1.0, math.inf], "not finite"),
    ],
)
def test_where_no_interval_can_be_computed(values, why):
    found = estimate(values)
    assert (found.low, found.high, found.number, found.why_none) == (None, None, len(values), why)
    assert why in verdict(found, "a", "b", "up")


@pytest.mark.parametrize(
    ("low", "high", "better", "text"),
    [
        (0.1, 0.3, "up", "b is better"),
        (0.1, 0.3, "down", "a is better"),
        (-0.3, -0.1, "up", "a is better"),
        (-0.3, -0.1, "down", "b is better"),
        (-0.1, 0.3, "up", "no difference detected"),
        (0.0, 0.3, "up", "no difference detected"),
    ],
)
def test_what_a_difference_means(low, high, better, text):
    assert verdict(Estimate(3, (low + high) / 2, 0.1, low, high), "a", "b", better) == text


def test_arms_that_are_the_same_do_not_differ():
    assert verdict(estimate([0.0, 0.0]), "a", "b", "up") == "no difference detected"


FACTORS = {"schedule": ("linear", "cosine"), "width": ("narrow", "wide")}


def grid(**values):
    """Rows of arms with their values by seed."""
    return [
        Row(dict(zip(FACTORS, name.split("_"), strict=True)), by_seed, estimate(list(by_seed.values())))
        for name, by_seed in values.items()
    ]


def test_the_differences_of_a_grid():
    rows = grid(
        linear_narrow={0: 1.0, 1: 2.0},
        linear_wide={0: 2.0, 1: 5.0},
        cosine_narrow={0: 1.5, 1: 2.5},
        cosine_wide={0: 4.0, 1: 6.0, 2: 9.0},
    )
    found = {(d.factor, *d.context.values()): d for d in differences_of(rows, FACTORS)}
    assert list(found) == [
        ("schedule",),
        ("schedule", "narrow"),
        ("schedule", "wide"),
        ("width",),
        ("width", "linear"),
        ("width", "cosine"),
    ]
    assert {name: each.estimate.mean for name, each in found.items()} == {
        ("schedule",): np.mean([(0.5 + 2) / 2, (0.5 + 1) / 2]),
        ("schedule", "narrow"): 0.5,
        ("schedule", "wide"): 1.5,
        ("width",): np.mean([(1 + 2.5) / 2, (3 + 3.5) / 2]),
        ("width", "linear"): 2,
        ("width", "cosine"): 3,
    }
    assert {each.estimate.number for each in found.values()} == {2}, "a seed counts once, and only where both have it"
    by_seed = stats.ttest_1samp([1.25, 0.75], 0).confidence_interval(0.95)
    assert (found["schedule",].estimate.low, found["schedule",].estimate.high) == pytest.approx(tuple(by_seed))
    assert (found["width",].first, found["width",].second) == ("narrow", "wide")


def test_a_cell_that_is_missing_leaves_the_others_to_compare():
    found = list(differences_of(grid(linear_narrow={0: 1.0}, linear_wide={0: 2.0}, cosine_narrow={0: 3.0}), FACTORS))
    assert [(each.factor, each.context, each.estimate.mean) for each in found] == [
        ("schedule", {"width": "narrow"}, 2.0),
        ("width", {"schedule": "linear"}, 1.0),
    ]
