import numpy as np
import pytest
import scipy.linalg
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference, measured, reference_of
from sklearn.linear_model import LinearRegression

from langevin.errors import UserError
from langevin.metrics import gathered
from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.fid_infinity import ExtrapolatedFrechetDistance, rooted_subsets
from langevin.metrics.gathered import Gaussian
from langevin.metrics.reference import Reference

D = 32
SCALES = np.linspace(0.5, 2, D)


def draw(count, seed, scales=SCALES, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, D)) * scales + shift).float()


def distance(samples, reference, metric, order=None, official=False):
    outputs = {"features": samples}
    (value,) = measured(metric, outputs, reference, order=order, official=official).values()
    return float(value)


def frechet(samples, reference):
    (m1, s1), (m2, s2) = ((x.double().numpy().mean(0), np.cov(x.double().numpy().T)) for x in (samples, reference))
    return np.square(m1 - m2).sum() + np.trace(s1 + s2 - 2 * scipy.linalg.sqrtm(s1 @ s2).real)


def by_the_official_protocol(samples, reference, num_sizes, min_size, seed):
    sizes = np.linspace(min_size, len(samples), num_sizes).astype("int32")
    rng = np.random.RandomState(seed)
    fids = [frechet(samples[rng.permutation(len(samples))[:size]], reference) for size in sizes]
    line = LinearRegression().fit(1 / sizes[:, None], fids)
    return line.predict(np.zeros((1, 1)))[0]


@pytest.mark.parametrize(("num_sizes", "min_size", "seed"), [(15, 50, 2020), (2, 100, 0), (5, 290, 1)])
def test_equals_the_official_protocol(num_sizes, min_size, seed):
    samples, reference = draw(301, 1, 1.4 * SCALES), draw(300, 2)
    expected = by_the_official_protocol(samples, reference, num_sizes, min_size, seed)
    metric = ExtrapolatedFrechetDistance(num_sizes, min_size, seed)
    assert distance(samples, KnownReference(reference), metric) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_subsets_that_share_sums_have_their_own_gaussians(shift):
    features, rng = draw(400, 1, shift=shift), np.random.default_rng(3)
    sizes = [20, 400, 33, 32, 200, 201, 350, 150, 399, 100, 300]
    subsets = [torch.from_numpy(rng.permutation(400)[:size]) for size in sizes]
    found = dict(rooted_subsets(features, subsets))
    assert sorted(found) == list(range(len(sizes)))
    for which, subset in enumerate(subsets):
        rows = features[subset].double().numpy()
        np.testing.assert_allclose(found[which].mean, rows.mean(0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(found[which].root @ found[which].root.T, np.cov(rows.T), rtol=0, atol=1e-12)


def test_rows_are_multiplied_once_for_subsets_that_share_them(monkeypatch):
    multiplied = []
    add_outer = gathered.add_outer
    monkeypatch.setattr(
        gathered, "add_outer", lambda total, rows: multiplied.append(len(rows)) or add_outer(total, rows)
    )
    subsets = [torch.randperm(4000)[: int(size)] for size in np.linspace(400, 4000, 15)]
    assert len(dict(rooted_subsets(draw(4000, 1), subsets))) == 15
    least = sum(min(len(subset), 4000 - len(subset)) for subset in subsets)
    assert sum(multiplied) < 0.7 * least


def known(tmp_path):
    """The very Gaussian that `draw` draws from."""
    gaussian = Gaussian(0, torch.zeros(D).double(), torch.from_numpy(np.diag(SCALES**2)))
    reference = Reference(None, None, {"features": gaussian}, "drawn", "0")
    reference.gather(TinyExtractor(), ("features",), (), torch.device("cpu"), tmp_path)
    return reference


@pytest.mark.parametrize(("factor", "shift"), [(1.0, 0.0), (1.2, 0.0), (0.8, 0.1)])
def test_it_is_near_the_distance_of_known_gaussians(factor, shift, tmp_path):
    exact = D * shift**2 + ((factor - 1) ** 2 * SCALES**2).sum()
    errors, errors_of_fid = [], []
    for seed in range(8):
        samples = draw(800, seed, factor * SCALES, shift)
        value = distance(samples, known(tmp_path), ExtrapolatedFrechetDistance(min_size=200))
        errors.append(value - exact)
        errors_of_fid.append(distance(samples, known(tmp_path), FrechetDistance(2)) - exact)
    assert np.mean(errors_of_fid) > 0.4  # its bias
    assert abs(np.mean(errors)) < 0.15 * np.mean(errors_of_fid)
    assert np.abs(errors).mean() < 0.5 * np.abs(errors_of_fid).mean()


def test_order_of_arrival_does_not_matter():
    samples, reference = draw(100, 1), KnownReference(draw(90, 2))
    order = torch.randperm(100, generator=torch.Generator().manual_seed(5))
    first = distance(samples, reference, ExtrapolatedFrechetDistance(4, 40))
    assert distance(samples, reference, ExtrapolatedFrechetDistance(4, 40), order) == first
    assert distance(samples, reference, ExtrapolatedFrechetDistance(4, 40, seed=1)) != first


def test_identical_sets_and_constants():
    points, ones, twos = draw(400, 1), torch.ones(20, D), torch.full((20, D), 2.0)
    assert distance(points, KnownReference(points), ExtrapolatedFrechetDistance(5, 100)) < 0
    assert distance(ones, KnownReference(ones), ExtrapolatedFrechetDistance(3, 5)) == pytest.approx(0, abs=1e-9)
    assert distance(ones, KnownReference(twos), ExtrapolatedFrechetDistance(3, 5)) == pytest.approx(D)


def test_fewer_samples_than_dimensions():
    samples, reference = draw(20, 1), draw(200, 2)
    value = distance(samples, KnownReference(reference), ExtrapolatedFrechetDistance(2, 10))
    first, second = (
        by_singular_values(samples[np.random.RandomState(2020).permutation(20)[:10]], reference),
        by_singular_values(samples, reference),
    )
    assert value == pytest.approx(2 * second - first, rel=1e-9)  # the line through them at 1/10 and 1/20


def by_singular_values(samples, reference):
    x1, x2 = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (samples.double().numpy(), reference.double().numpy()))
    shift = samples.double().mean(0) - reference.double().mean(0)
    trace = np.linalg.svd(x1 @ x2.T, compute_uv=False).sum()
    return float(shift.square().sum()) + np.square(x1).sum() + np.square(x2).sum() - 2 * trace


@pytest.mark.parametrize(("official", "key"), [(True, "fid_infinity@12"), (False, "fd_infinity_tiny-00000000@12")])
def test_name_contains_the_weights_and_the_number(official, key):
    outputs, reference = {"features": draw(12, 1)}, KnownReference(draw(12, 2))
    assert list(measured(ExtrapolatedFrechetDistance(2, 5), outputs, reference, official=official)) == [key]


@pytest.mark.parametrize(
    ("samples", "reference", "message"),
    [
        (5013, 9999, r"num_samples=5013 is too few .* num_sizes=15 .* min_size=5000: use at least 5014"),
        (9999, 4999, r"the number of reference images=4999 is too few for metrics\.fid_infinity\.min_size=5000"),
    ],
)
def test_too_few_images_are_refused(samples, reference, message):
    with pytest.raises(UserError, match=message):
        ExtrapolatedFrechetDistance().check(Plan(samples, reference_of(reference), TinyExtractor()))
    ExtrapolatedFrechetDistance().check(Plan(5014, reference_of(5000), TinyExtractor()))
    ExtrapolatedFrechetDistance().check(Plan(5014, Reference(None, None, {}), TinyExtractor()))


def test_missing_samples_are_noticed():
    metric = ExtrapolatedFrechetDistance(2, 5)
    metric.begin(Plan(9, KnownReference(torch.randn(9, 16)), TinyExtractor()))
    metric.update({"features": torch.zeros(8, 16)}, {}, torch.arange(8))
    with pytest.raises(RuntimeError, match="was given 8 of 9 samples"):
        metric.compute()
