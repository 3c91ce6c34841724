import numpy as np
import pytest
import scipy.linalg
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference, measured, reference_of
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from langevin.config.signature import signature
from langevin.config.types import fits
from langevin.errors import UserError
from langevin.metrics import gathered
from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance, frechet_distance, rooted, rooted_rows
from langevin.metrics.gathered import Gaussian

D = TinyExtractor.sizes["features"]


def draw(count, seed, scale=1.0, shift=0.0):
    """Correlated features (count, D), float32 as from a network."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(D, D))
    return torch.from_numpy(generator.normal(size=(count, D)) @ mixing * scale + shift).float()


def distance(samples, reference, official=False):
    metric = FrechetDistance(min_samples=2)
    return measured(metric, {"features": samples}, KnownReference(reference), official=official)


def value(samples, reference):
    return float(next(iter(distance(samples, reference).values())))


def between(mean1, covariance1, mean2, covariance2):
    first, second = Gaussian(9, mean1, covariance1), Gaussian(9, mean2, covariance2)
    cpu = torch.device("cpu")
    return float(frechet_distance(rooted(first, cpu), rooted(second, cpu)))


def by_matrix_root(samples, reference):
    """The definition, by scipy's square root of a matrix."""
    (m1, s1), (m2, s2) = ((x.double().numpy().mean(0), np.cov(x.double().numpy().T)) for x in (samples, reference))
    root = scipy.linalg.sqrtm(s1 @ s2)
    return np.square(m1 - m2).sum() + np.trace(s1 + s2) - 2 * np.trace(root).real


def by_singular_values(samples, reference):
    """Exact also for singular covariances: tr (S1 S2)^(1/2) is the nuclear norm of X1 X2^T, X the centred features."""
    x1, x2 = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (samples.double().numpy(), reference.double().numpy()))
    shift = samples.double().mean(0) - reference.double().mean(0)
    trace = np.linalg.svd(x1 @ x2.T, compute_uv=False).sum()
    return float(shift.square().sum()) + np.square(x1).sum() + np.square(x2).sum() - 2 * trace


@pytest.mark.parametrize("number", [4, 300])
@pytest.mark.parametrize("level", [torch.inf, torch.nan])
def test_of_samples_without_finite_features_it_is_no_number(number, level):
    """As of a network of one's own, in the middle of training: with fewer samples than features too."""
    samples, reference = draw(number, 1), draw(200, 2)
    samples[2, 1] = level
    assert np.isnan(value(samples, reference))
    cpu = torch.device("cpu")
    known = rooted(KnownReference(reference).moments("features"), cpu)
    assert frechet_distance(rooted_rows(samples), known).isnan()


def test_equals_the_definition():
    samples, reference = draw(300, 1, 1.3, 0.2), draw(200, 2)
    expected = by_matrix_root(samples, reference)
    assert expected > 1
    assert value(samples, reference) == pytest.approx(expected, rel=1e-9)
    assert value(samples, reference) == pytest.approx(by_singular_values(samples, reference), rel=1e-9)


def test_equals_torch_fidelity():
    samples, reference = draw(300, 1, 1.3, 0.2), draw(200, 2)
    expected = fid_statistics_to_metric(
        fid_features_to_statistics(samples), fid_features_to_statistics(reference), verbose=False
    )
    assert value(samples, reference) == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)


@pytest.mark.parametrize(("count", "reference_count"), [(2, 2), (7, 5), (5, 200), (200, 5), (D, D)])
def test_equals_the_definition_with_fewer_samples_than_dimensions(count, reference_count):
    samples, reference = draw(count, 3, 1.3), draw(reference_count, 4)
    assert value(samples, reference) == pytest.approx(by_singular_values(samples, reference), rel=1e-9)


@pytest.mark.parametrize("count", [5, D + 1, 400])
def test_identical_sets_have_no_distance(count):
    features = draw(count, 5)
    assert abs(value(features, features)) < 1e-6
    assert abs(value(features.flip(0), features)) < 1e-6


@pytest.mark.parametrize("count", [7, 300])
def test_small_directions_beside_a_dominant_one_are_kept(count):
    """A network's features share one big direction; a root taken of squared eigenvalues would lose the small ones."""
    scales = torch.logspace(2, -4, D)
    samples = torch.randn(count, D, generator=torch.Generator().manual_seed(1)) * scales
    reference = torch.randn(count, D, generator=torch.Generator().manual_seed(2)) * scales * torch.linspace(1, 2, D)
    assert value(samples, reference) == pytest.approx(by_singular_values(samples, reference), rel=1e-10)
    assert abs(value(samples, samples)) < 1e-7


def test_identical_sets_have_no_distance_among_many_dimensions():
    features = torch.randn(12, 256, generator=torch.Generator().manual_seed(0)).double().relu()
    mean, covariance = features.mean(0), features.T.cov()
    assert abs(between(mean, covariance, mean, covariance)) < 1e-6


def covariance(condition, seed, size=200):
    """Eigenvalues spread evenly in the logarithm, in a random basis."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]
    return torch.from_numpy((basis * np.logspace(1, 1 - np.log10(condition), size)) @ basis.T)


@pytest.fixture
def exact_values(monkeypatch):
    """Whether each distance needed the slow way, by singular values."""
    needed = []
    monkeypatch.setattr(torch.linalg, "svdvals", lambda x: (needed.append(x), torch.from_numpy(svdvals(x.numpy())))[1])
    return needed


def svdvals(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


def by_eigenvectors(covariance1, covariance2):
    """Equal to the definition for means of zero; accurate where a root of a product is not."""
    roots = []
    for matrix in (covariance1.numpy(), covariance2.numpy()):
        values, vectors = np.linalg.eigh(matrix)
        roots.append(vectors * np.sqrt(values.clip(0)))
    return float(covariance1.trace() + covariance2.trace()) - 2 * svdvals(roots[0].T @ roots[1]).sum()


@pytest.mark.parametrize(("condition", "fast"), [(1e2, True), (1e4, True), (1e6, True), (1e12, False)])
def test_fast_way_is_taken_only_where_it_is_exact(condition, fast, exact_values):
    first, second, zero = covariance(condition, 1), covariance(condition, 2), torch.zeros(200).double()
    value = between(zero, first, zero, second)
    assert (len(exact_values) == 0) == fast
    assert value > 10
    assert value == pytest.approx(by_eigenvectors(first, second), rel=1e-9)
    if condition < 1e6:
        root = scipy.linalg.sqrtm((first @ second).numpy())
        assert value == pytest.approx(float(first.trace() + second.trace()) - 2 * np.trace(root).real, rel=1e-6)
    for matrix in (first, second):
        assert abs(between(zero, matrix, zero, matrix)) < 1e-9


def test_opposite_covariances_are_exact():
    """Wide in one set where the other is narrow: S2 = S1^-1, with the trace of the root D."""
    first, zero = covariance(1e6, 1) * 1e2, torch.zeros(200).double()
    second = torch.linalg.inv(first)
    expected = float(first.trace() + second.trace()) - 2 * 200
    assert between(zero, first, zero, second) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rows", [1, 64, 150, 300])
def test_features_are_added_in_blocks_of_any_size(rows, monkeypatch):
    monkeypatch.setattr(gathered, "ROWS", rows)
    samples, reference = draw(300, 1, 1.3, 0.2), draw(200, 2)
    metric = FrechetDistance(min_samples=2)
    metric.begin(Plan(300, KnownReference(reference), TinyExtractor()))
    metric.update({"features": draw(100, 8)}, {}, torch.arange(100))
    for _ in range(2):
        metric.reset()
        for part in torch.arange(300).split(50):
            metric.update({"features": samples[part]}, {}, part)
            assert sum(map(len, metric.samples.recent)) < rows
        for value in (*metric.compute().values(), *metric.compute().values()):
            assert float(value) == pytest.approx(by_singular_values(samples, reference), rel=1e-9)


def test_constant_sets_differ_by_their_means():
    ones, twos = torch.ones(40, D), torch.full((30, D), 2.0)
    assert value(ones, ones) == 0
    assert value(ones, twos) == pytest.approx(D)
    third, spread = torch.full((40, D), 1 / 3), draw(100, 6)
    assert value(third, third) == pytest.approx(0, abs=1e-6)
    assert value(third, spread) == pytest.approx(by_singular_values(third, spread), rel=1e-7)
    assert value(spread, third) == pytest.approx(by_singular_values(third, spread), rel=1e-7)


def test_diagonal_gaussians_have_the_textbook_distance():
    first, second = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.0]).double()
    means = torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([0.0, 2.0, 0.0]).double()
    expected = 1 + 4 + (1 - 2) ** 2 + 0 + (3 - 0) ** 2
    assert between(means[0], first.diag(), means[1], second.diag()) == pytest.approx(expected)


@pytest.mark.parametrize(("official", "key"), [(True, "fid@12"), (False, "fd_tiny-00000000@12")])
def test_name_contains_the_weights_and_the_number(official, key):
    assert list(distance(draw(12, 1), draw(12, 2), official)) == [key]


@pytest.mark.parametrize(
    ("samples", "reference", "named"), [(15, 100, "num_samples=15"), (100, 3, "reference images=3")]
)
def test_too_few_images_are_refused_before_any_work(samples, reference, named):
    with pytest.raises(UserError, match=rf"{named} is too few.* asks for 16.*metrics\.fid\.min_samples"):
        FrechetDistance().check(Plan(samples, reference_of(reference), TinyExtractor()))
    FrechetDistance().check(Plan(16, reference_of(16), TinyExtractor()))
    FrechetDistance(min_samples=3).check(Plan(samples, reference_of(reference), TinyExtractor()))


def test_a_lowered_minimum_still_holds():
    with pytest.raises(UserError, match=r"num_samples=4 is too few.* asks for 5"):
        FrechetDistance(min_samples=5).check(Plan(4, reference_of(100), TinyExtractor()))


@pytest.mark.parametrize("min_samples", [1, 0, -3])
def test_minimum_below_two_is_refused(min_samples):
    annotation = signature("langevin.metrics.fid.FrechetDistance")["min_samples"].annotation
    assert not fits(min_samples, annotation)
    assert fits(2, annotation)
    assert fits(None, annotation)


@pytest.mark.parametrize("count", [2, 7, D, D + 1, 300])
def test_rooted_rows_are_the_rooted_gaussian(count):
    rows, other = draw(count, 1, 1.3, 0.2), draw(90, 2)
    root = rooted_rows(rows)
    assert root.root.shape[1] <= min(count, D)
    torch.testing.assert_close(root.root @ root.root.T, torch.from_numpy(np.cov(rows.double().numpy().T)))
    value = float(frechet_distance(root, rooted_rows(other)))
    assert value == pytest.approx(by_singular_values(rows, other), rel=1e-9)
