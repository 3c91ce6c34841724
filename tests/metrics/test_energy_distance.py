import math

import numpy as np
import pytest
import scipy.stats
import torch
from helpers.extractors import TinyExtractor
from helpers.images import example_images
from helpers.measured import measured, reference_of
from scipy.spatial.distance import cdist

from langevin.errors import UserError
from langevin.metrics import energy_distance as module
from langevin.metrics.base import Plan
from langevin.metrics.energy_distance import EnergyDistance, energy_distance
from langevin.metrics.reference import Reference


def draw(count, seed, size=2, shift=0.0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def by_definition(x, y):
    """The unbiased estimate, by scipy's distances."""
    between, n, m = cdist(x, y).mean(), len(x), len(y)
    return 2 * between - cdist(x, x).sum() / (n * (n - 1)) - cdist(y, y).sum() / (m * (m - 1))


@pytest.fixture(params=[5, 16, 1024])
def _block(request, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", request.param)


@pytest.mark.usefixtures("_block")
@pytest.mark.parametrize(("n", "m", "size"), [(33, 48, 2), (2, 2, 1), (16, 5, 40)])
def test_equals_the_definition(n, m, size):
    x, y = draw(n, 1, size), draw(m, 2, size, shift=0.5)
    assert float(energy_distance(x, y)) == pytest.approx(by_definition(x, y), rel=1e-13, abs=1e-13)
    assert float(energy_distance(y, x)) == pytest.approx(by_definition(x, y), rel=1e-13, abs=1e-13)


def test_equals_scipys_on_a_line():
    """Its is the square root, of the estimate that counts the distance of a point to itself."""
    x, y = draw(60, 1, 1), draw(45, 2, 1, shift=0.5)
    within = sum(float(torch.cdist(z, z).sum()) / len(z) * (1 / (len(z) - 1) - 1 / len(z)) for z in (x, y))
    expected = scipy.stats.energy_distance(x.flatten(), y.flatten()) ** 2 - within
    assert float(energy_distance(x, y)) == pytest.approx(expected, rel=1e-12)


def test_of_two_gaussians_is_known():
    """On a line X - Y is normal of mean d and variance 2, whose mean absolute value is known."""
    d = 0.7
    folded = 2 / math.sqrt(math.pi) * math.exp(-(d**2) / 4) + d * math.erf(d / 2)
    expected = 2 * folded - 2 * 2 / math.sqrt(math.pi)
    values = [float(energy_distance(draw(2000, 2 * k, 1), draw(2000, 2 * k + 1, 1, shift=d))) for k in range(10)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert error < 0.04 * expected
    assert np.mean(values) == pytest.approx(expected, abs=4 * error)


def test_of_one_distribution_has_the_mean_zero():
    values = [float(energy_distance(draw(50, 2 * k), draw(50, 2 * k + 1))) for k in range(400)]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0, "unbiased, it must fall below"
    assert error < 0.1 * 2 * float(torch.cdist(draw(50, 0), draw(50, 1)).mean()) / 50, "the bias of the other estimate"


def test_near_points_far_from_the_origin_are_told_apart():
    x = 1e6 + torch.tensor([[0.0, 0], [1e-3, 0]], dtype=torch.float64)
    assert float(energy_distance(x, x)) == pytest.approx(-1e-3, rel=1e-6)


def distance(samples, reference, metric=None, order=None):
    metric = metric or EnergyDistance()
    ((name, value),) = measured(metric, {"stored": samples}, Reference(reference), order=order).items()
    assert name == f"energy_distance@{len(samples)}"
    return float(value)


def test_of_vectors_is_that_of_their_numbers():
    samples, reference = draw(40, 1).float(), draw(30, 2, shift=0.5).float()
    assert distance(samples, reference.numpy()) == float(energy_distance(samples.double(), reference.double()))


def test_of_images_is_that_of_their_levels_from_minus_one_to_one():
    samples, reference = example_images(23, 8, seed=1), example_images(19, 8, seed=2, contrast=0.5)
    x, y = (images.flatten(1).double().numpy() / 127.5 - 1 for images in (samples, reference))
    # Channels last or first, a distance is the same.
    found = distance(samples, reference.permute(0, 2, 3, 1).numpy())
    assert found == pytest.approx(by_definition(x, y), rel=1e-12)
    assert found > 0.1


def test_order_of_arrival_does_not_matter():
    samples, reference = draw(50, 1).float(), draw(40, 2).float().numpy()
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    assert distance(samples, reference) == distance(samples, reference, order=order)


def test_takes_so_many_of_the_reference_evenly_spaced():
    samples, reference = draw(20, 1).float(), draw(10, 2).float().numpy()
    assert distance(samples, reference, EnergyDistance(4)) == distance(samples, reference[[0, 2, 5, 7]])
    assert distance(samples, reference, EnergyDistance(10)) == distance(samples, reference)


def test_a_missing_sample_is_noticed():
    metric = EnergyDistance()
    metric.begin(Plan(4, Reference(draw(5, 2).float().numpy()), TinyExtractor()))
    metric.update({"stored": draw(3, 1).float()}, {}, torch.arange(3))
    with pytest.raises(RuntimeError, match="EnergyDistance was given 3 of 4 samples"):
        metric.compute()


@pytest.mark.parametrize(
    ("samples", "references", "name"), [(1, 2, "num_samples"), (2, 1, "the number of reference images")]
)
def test_too_few_are_refused(samples, references, name):
    with pytest.raises(UserError, match=rf"{name}=1 is too few for metrics\.energy_distance: use at least 2"):
        EnergyDistance().check(Plan(samples, reference_of(references), TinyExtractor()))
    EnergyDistance().check(Plan(2, reference_of(2), TinyExtractor()))
