import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference, measured, reference_of
from scipy.spatial.distance import cdist
from torch_fidelity.metric_prc import prc_features_to_metric

from langevin.errors import UserError
from langevin.metrics import neighbours
from langevin.metrics.base import Plan
from langevin.metrics.precision_recall import PrecisionRecall, by_neighbours

D = TinyExtractor.sizes["features"]


def draw(count, seed, scale=1.0, shift=0.0):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) * scale + shift


def values(samples, reference, *ks):
    return [float(value) for value in by_neighbours(samples, reference, *(ks or (3, 5)))]


def by_brute_force(samples, reference, precision_recall_k, density_coverage_k):
    """The papers' definitions, word by word."""
    x, y = samples.double().numpy(), reference.double().numpy()
    between = cdist(x, y)

    def radii(points, k):
        return np.sort(cdist(points, points), axis=1)[:, k]

    in_reference = between <= radii(y, precision_recall_k)
    in_samples = between <= radii(x, precision_recall_k)[:, None]
    held = between <= radii(y, density_coverage_k)
    return [
        in_reference.any(1).mean(),
        in_samples.any(0).mean(),
        held.sum() / (density_coverage_k * len(x)),
        held.any(0).mean(),
    ]


@pytest.fixture(params=[16, 50, 2048])
def block(request, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("ks", [(3, 5), (5, 3), (1, 1), (4, 29)])
def test_equals_brute_force(ks):
    samples, reference = draw(41, 1, 0.8, 0.3), draw(30, 2)
    expected = by_brute_force(samples, reference, *ks)
    assert min(expected) > 0.1
    assert values(samples, reference, *ks) == pytest.approx(expected, rel=1e-14)


def test_equals_brute_force_on_more_points():
    samples, reference = draw(900, 1, 0.9, 0.6), draw(1200, 2)
    expected = by_brute_force(samples, reference, 3, 5)
    assert all(0.3 < value < 0.8 for value in expected)
    assert values(samples, reference) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_equals_torch_fidelity(k):
    samples, reference = draw(300, 1, 0.9, 0.6).double(), draw(400, 2).double()
    expected = prc_features_to_metric(samples, reference, prc_neighborhood=k, verbose=False)
    assert 0.15 < expected["recall"] < expected["precision"] < 0.85
    precision, recall, _, _ = values(samples, reference, k, 5)
    assert precision == pytest.approx(expected["precision"], rel=1e-6)  # theirs is a mean in float32
    assert recall == pytest.approx(expected["recall"], rel=1e-6)


def test_far_from_the_origin_small_distances_are_kept():
    samples, reference = draw(60, 1, 0.8), draw(50, 2)
    far = [(1e3 * torch.ones(D).double() + 1e-5 * points.double()) for points in (samples, reference)]
    assert values(*far) == pytest.approx(by_brute_force(samples, reference, 3, 5), rel=1e-14)


@pytest.mark.parametrize("block", [1, 3])
def test_it_is_known_in_one_dimension(block, monkeypatch):
    """Reference 0, 1, 2, 10; k = 1: balls of radius 1, 1, 1, 8. Samples -1, 1.5, 30, 31: balls 2.5, 2.5, 1, 1."""
    monkeypatch.setattr(neighbours, "BLOCK", block)
    reference, samples = torch.tensor([[0.0], [1], [2], [10]]), torch.tensor([[-1.0], [1.5], [30], [31]])
    # -1 lies on the edge of the first ball; 1.5 is in the second and third, and 8.5 from 10, out of the last.
    assert values(samples, reference, 1, 1) == [2 / 4, 3 / 4, 3 / 4, 3 / 4]


@pytest.mark.usefixtures("block")
def test_identical_sets_are_perfect():
    points = draw(23, 3)
    # Each ball holds its k neighbours and the centre.
    assert values(points, points) == [1, 1, pytest.approx(6 / 5), 1]
    assert values(points.flip(0), points) == [1, 1, pytest.approx(6 / 5), 1]


def test_far_sets_have_nothing_in_common():
    assert values(draw(30, 1), draw(40, 2, shift=100.0)) == [0, 0, 0, 0]


def test_collapsed_samples_are_precise_and_cover_little():
    reference = draw(500, 2)
    samples = reference[:5].repeat(20, 1)
    precision, recall, density, coverage = values(samples, reference)
    assert precision == 1
    assert recall == 5 / 500  # balls of radius 0
    assert density > 0.9
    assert 5 / 500 <= coverage < 0.2


def test_constant_sets():
    third, half = torch.full((20, D), 1 / 3), torch.full((30, D), 0.5)
    assert values(third, third.repeat(2, 1)) == [1, 1, 40 / 5, 1]
    assert values(third, half) == [0, 0, 0, 0]
    assert values(third, draw(30, 1, shift=50.0)) == [0, 0, 0, 0]


@pytest.mark.parametrize(("official", "suffix"), [(True, "@40"), (False, "_tiny-00000000@40")])
def test_it_reports_the_four_values(official, suffix):
    samples, reference = draw(40, 1, 0.7), draw(50, 2)
    reported = measured(PrecisionRecall(), {"features": samples}, KnownReference(reference), official=official)
    assert list(reported) == [f"{name}{suffix}" for name in ("precision", "recall", "density", "coverage")]
    assert [float(value) for value in reported.values()] == pytest.approx(by_brute_force(samples, reference, 3, 5))


@pytest.mark.parametrize(
    ("samples", "reference", "named"),
    [
        (3, 100, r"num_samples=3 is too few for metrics\.precision_recall\.precision_recall_k=3"),
        (100, 3, r"reference images=3 is too few for metrics\.precision_recall\.precision_recall_k=3"),
        (100, 5, r"reference images=5 is too few for metrics\.precision_recall\.density_coverage_k=5"),
    ],
)
def test_too_few_images_for_neighbours_are_refused(samples, reference, named):
    with pytest.raises(UserError, match=named + ": an image needs"):
        PrecisionRecall().check(Plan(samples, reference_of(reference), TinyExtractor()))
    PrecisionRecall().check(Plan(4, reference_of(6), TinyExtractor()))
