"""Screening in few digits changes no result, also where few digits tell nothing apart."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from langevin.metrics import neighbours, screened
from langevin.metrics.neighbourhoods import Neighbourhoods


def draw(count, seed, size=24):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near_ties():
    """Two shells about each other's centre, whose radii differ in the ninth digit."""
    x, y = (torch.nn.functional.normalize(draw(count, seed)) for count, seed in ((300, 1), (350, 2)))
    return x * (1 + 1e-9 * torch.arange(300)[:, None]), y


def duplicates():
    y = draw(90, 3).repeat(4, 1)
    return torch.cat([y[40:160], draw(100, 4)]), y


def far_mean():
    return 1e7 + draw(300, 5), 1e7 + 0.5 + draw(350, 6)


def far_clusters():
    """Within a cluster, distances are a millionth of those to the common mean."""
    centres = 1e3 * draw(5, 7)
    return (centres.repeat(60, 1) + 1e-3 * draw(300, 8)), (centres.repeat(70, 1) + 1e-3 * draw(350, 9))


def one_far_outlier():
    y = draw(350, 11)
    y[17] *= 1e5
    return draw(300, 10), y


def tiny_numbers():
    return 1e-25 * draw(300, 12), 1e-25 * draw(350, 13)


def one_place():
    return draw(1, 14).repeat(300, 1), draw(1, 14).repeat(350, 1)


def near_axes():
    """All spread lies along three axes, but for a millionth, and some points differ in that alone."""
    axes = torch.linalg.qr(draw(24, 15)).Q[:3]
    x, y = (draw(count, seed, 3) @ axes + 1e-6 * draw(count, seed + 1) for count, seed in ((300, 16), (350, 18)))
    y[:50] = x[:50] + 1e-9 * draw(50, 20)
    return x, y


def tight_clusters():
    """Within a cluster, distances are a thousand-millionth of those to the common mean."""
    x, y = (draw(count, seed) * 1e-6 for count, seed in ((250, 21), (300, 22)))
    centres = 1e3 * draw(5, 23)
    return x + centres.repeat(50, 1), y + centres.repeat(60, 1)


def few_places():
    places = draw(20, 24)
    return places.repeat(15, 1), places.repeat(20, 1)


SETS = [
    tight_clusters,
    few_places,
    near_axes,
    near_ties,
    duplicates,
    far_mean,
    far_clusters,
    one_far_outlier,
    tiny_numbers,
    one_place,
]


def few_dimensions_have_axes(monkeypatch):
    monkeypatch.setattr(screened, "LEAST", 8)
    monkeypatch.setattr(screened, "SHARES", (12, 8))
    monkeypatch.setattr(screened, "HELD", 0)


@pytest.mark.parametrize(
    ("few", "more"), [(screened.FEW, screened.MORE), (10**9, 10**9)], ids=["pairs", "whole blocks"]
)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("axes", [0, 3])
@pytest.mark.parametrize("sets", SETS, ids=lambda sets: sets.__name__)
def test_it_equals_brute_force_in_float64(sets, axes, kind, few, more, monkeypatch):
    if axes:
        few_dimensions_have_axes(monkeypatch)
    monkeypatch.setattr(neighbours, "BLOCK", 100)
    monkeypatch.setattr(screened, "FEW", few)
    monkeypatch.setattr(screened, "MORE", more)
    monkeypatch.setattr(screened, "KIND", kind)
    x, y = sets()
    search = Neighbourhoods(y)
    search.ask((3, 5), (3,), nearest=True)
    found = search.find(x)

    between, within, own = cdist(x, y), np.sort(cdist(y, y), axis=1), np.sort(cdist(x, x), axis=1)
    for k in (3, 5):
        holds = between <= within[:, k] * (1 + 1e-14)
        assert np.array_equal(found.inside[k], holds.any(1))
        assert np.array_equal(found.holding[k], holds.any(0))
        assert found.held[k] == holds.sum()
    assert np.array_equal(found.recalled[3], (between <= own[:, 3:4] * (1 + 1e-14)).any(0))
    np.testing.assert_allclose(found.distances, between.min(1), rtol=1e-12)
    np.testing.assert_allclose(between[np.arange(len(x)), found.nearest], between.min(1), rtol=1e-12)
    np.testing.assert_allclose(found.to_others, within[found.nearest, 1], rtol=1e-12)


@pytest.mark.parametrize("sets", [duplicates, few_places, one_place], ids=lambda sets: sets.__name__)
@pytest.mark.parametrize("axes", [0, 3])
def test_of_equally_near_images_the_first_is_found(axes, sets, monkeypatch):
    if axes:
        few_dimensions_have_axes(monkeypatch)
    monkeypatch.setattr(neighbours, "BLOCK", 20 if sets is duplicates else 100)
    x, y = sets()
    search = Neighbourhoods(y)
    search.ask(nearest=True)
    assert np.array_equal(search.find(x).nearest, cdist(x, y).argmin(1))


@pytest.mark.parametrize("axes", [0, 3])
@pytest.mark.parametrize("sets", [near_axes, duplicates, far_clusters], ids=lambda sets: sets.__name__)
def test_a_metric_alone_finds_what_it_finds_beside_others(sets, axes, monkeypatch):
    if axes:
        few_dimensions_have_axes(monkeypatch)
    monkeypatch.setattr(neighbours, "BLOCK", 100)
    x, y = sets()
    between, within, own = cdist(x, y), np.sort(cdist(y, y), axis=1), np.sort(cdist(x, x), axis=1)

    def found(*of_reference, of_samples=(), nearest=False):
        search = Neighbourhoods(y)
        search.ask(of_reference, of_samples, nearest=nearest)
        return search.find(x)

    nearest, both = found(nearest=True), found(3, nearest=True)
    for each in (nearest, both):
        np.testing.assert_allclose(each.distances, between.min(1), rtol=1e-12)
        np.testing.assert_allclose(each.to_others, within[each.nearest, 1], rtol=1e-12)
    holds = between <= within[:, 3] * (1 + 1e-14)
    for each in (found(3), both):
        assert each.held[3] == holds.sum()
        assert np.array_equal(each.inside[3], holds.any(1))
    recalled = found(of_samples=(3,)).recalled[3]
    assert np.array_equal(recalled, (between <= own[:, 3:4] * (1 + 1e-14)).any(0))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_most_pairs_are_ruled_out_by_screening(kind, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 500)
    monkeypatch.setattr(screened, "KIND", kind)
    seen = []
    exact = screened.Screened.exact
    monkeypatch.setattr(screened.Screened, "exact", lambda *given: seen.append(len(given[1])) or exact(*given))
    search = Neighbourhoods(draw(2000, 2).float())
    search.ask((3,), (3,), nearest=True)
    search.find(draw(2000, 1).float())
    assert sum(seen) < 0.05 * 2 * 2000 * 2000


@pytest.mark.parametrize(
    ("power", "outlier", "whole"), [(2.5, 1, 0.02), (2.5, 1e6, 0.02), (0.0, 1, 1.0), (0.0, 1e6, 1.0)]
)
def test_few_blocks_are_multiplied_in_all_dimensions_where_a_spectrum_decays(power, outlier, whole, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 100)
    monkeypatch.setattr(screened, "LEAST", 64)
    monkeypatch.setattr(screened, "SHARES", (8, 4))
    products = {True: 0, False: 0}
    scores = screened.Screened.scores

    def counted(*given, short=False):
        products[short] += 1
        return scores(*given, short=short)

    monkeypatch.setattr(screened.Screened, "scores", counted)
    scales = torch.arange(1, 97).pow(-power / 2)
    x, y = (draw(1000, seed, 96).float() * scales for seed in (1, 2))
    y[17] *= outlier
    search = Neighbourhoods(y)
    search.ask((3,), (3,), nearest=True)
    found = search.find(x)
    in_turn, first_bounds = 2 * (10 + 45) + 100, 3 * 10
    assert products[True] == (in_turn + first_bounds if power else 0), "axes of a flat spectrum are not worth it"
    assert products[False] <= whole * in_turn
    between, within = torch.cdist(x.double(), y.double()), torch.cdist(y.double(), y.double()).sort(1).values
    assert torch.equal(found.inside[3], (between <= within[:, 3]).any(1))
    np.testing.assert_allclose(found.distances, between.amin(1), rtol=1e-9)


def test_what_one_metric_found_is_given_to_the_next_of_the_same_samples():
    search = Neighbourhoods(draw(40, 2))
    search.ask((3,), (3,))
    samples = draw(30, 1)
    first = search.find(samples)
    assert search.find(samples.clone()) is first
    assert search.find(samples + 1) is not first
    search.ask(nearest=True)
    assert search.find(samples).nearest is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_far_from_everything(bad):
    reference, samples = torch.randn(40, 3), torch.randn(30, 3)
    whole, rest = samples.clone(), samples[1:]
    whole[0, 1] = bad
    among, without = Neighbourhoods(reference), Neighbourhoods(reference)
    for each in (among, without):
        each.ask((3,), (3,), nearest=True)
    found, expected = among.find(whole), without.find(rest)
    assert not found.inside[3][0]
    assert found.distances[0] == torch.inf
    for name in ("holding", "recalled"):
        assert torch.equal(getattr(found, name)[3], getattr(expected, name)[3]), name
    assert torch.equal(found.inside[3][1:], expected.inside[3])
    assert torch.equal(found.distances[1:], expected.distances)
    nothing = among.find(torch.full_like(samples, bad))
    assert nothing.held[3] == 0
    assert not nothing.recalled[3].any()
    assert not nothing.holding[3].any()
    assert not nothing.inside[3].any()
