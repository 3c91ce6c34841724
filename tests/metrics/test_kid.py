from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
import torch_fidelity
from helpers.extractors import TinyExtractor
from helpers.images import ImageDataset, example_images
from helpers.measured import KnownReference, measured, reference_of
from torch_fidelity.metric_kid import kid_features_to_metric

from langevin.errors import UserError
from langevin.evaluation.evaluation import Evaluation
from langevin.features.inception import Inception
from langevin.metrics.base import Plan
from langevin.metrics.kid import KernelDistance, squared_mmd
from langevin.metrics.reference import Reference
from langevin.samplers.pipeline import SampleBatch

D = TinyExtractor.sizes["features"]


def draw(count, seed, shift=0.0):
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed)) + shift


def distance(samples, reference, metric, order=None, official=False):
    return measured(metric, {"features": samples}, KnownReference(reference), order=order, official=official)


@pytest.mark.parametrize(
    ("count", "reference_count", "subsets", "size", "seed"),
    [(60, 45, 9, 20, 2020), (20, 33, 1, 20, 2020), (40, 40, 30, 2, 0), (300, 290, 2, 270, 1)],
)
def test_equals_torch_fidelity(count, reference_count, subsets, size, seed):
    samples, reference = draw(count, 1, 0.5).double(), draw(reference_count, 2).double()
    expected = kid_features_to_metric(
        samples, reference, kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    mean, std = distance(samples, reference, KernelDistance(subsets, size, seed)).values()
    assert float(mean) == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-10)
    assert float(std) == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-10, abs=1e-14)


@pytest.mark.slow
def test_its_defaults_are_torch_fidelitys():
    samples, reference = draw(1100, 1, 0.5), draw(1050, 2)
    expected = kid_features_to_metric(samples.double(), reference.double(), verbose=False)
    assert list(distance(samples, reference, KernelDistance()).values()) == pytest.approx(
        list(expected.values()), rel=1e-10
    )


@pytest.mark.slow
def test_equals_torch_fidelity_through_the_network(inception_weights, tmp_path):
    samples, reference = example_images(7, seed=1, contrast=0.8), example_images(6, seed=2, contrast=0.4)
    evaluation = Evaluation(
        Inception(str(inception_weights)), {"kid": KernelDistance(subsets=5, subset_size=4)}, tmp_path
    )
    evaluation.prepare(len(samples), Reference(reference.permute(0, 2, 3, 1).numpy()), {})
    evaluation.gather()
    for part in torch.arange(len(samples)).split(5):
        evaluation.add(SampleBatch(part, samples[part], {}))
    expected = torch_fidelity.calculate_metrics(
        input1=ImageDataset(samples),
        input2=ImageDataset(reference),
        feature_extractor_weights_path=str(inception_weights),
        kid=True,
        kid_subsets=5,
        kid_subset_size=4,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # no loader processes
    )
    assert expected["kernel_inception_distance_mean"] > 0.01
    assert list(evaluation.compute()["kid"].values()) == pytest.approx(
        list(expected.values()), rel=1e-5
    )  # theirs is in float32


def test_equals_the_definition_in_exact_fractions():
    rng = np.random.default_rng(0)
    x, y = rng.integers(-3, 4, (5, 4)), rng.integers(-2, 6, (6, 4))

    def kernel(a, b):
        return (Fraction(int(a @ b), 4) + 1) ** 3

    def mean(pairs):
        values = [kernel(a, b) for a, b in pairs]
        return sum(values) / len(values)

    def others(z):
        return [(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]

    exact = mean(others(x)) + mean(others(y)) - 2 * mean(product(x, y))
    assert exact != 0
    value = squared_mmd(torch.from_numpy(x).double(), torch.from_numpy(y).double())
    assert float(value) == pytest.approx(float(exact), rel=1e-14)


@pytest.mark.slow
def test_its_expectation_is_that_of_the_kernel():
    """For normal features, one set shifted by m: E k = 1 + 3 E x.y/D + 3 E (x.y/D)^2 + E (x.y/D)^3."""
    shift, size = 1.0, 6000
    x, y = draw(size, 3, shift).double(), draw(size, 4).double()
    # E (x.x'/D)^n for independent x, x' of mean m: in each dimension E x x' = m^2, E (x x')^2 = (1 + m^2)^2, and
    # E (x x')^3 = (3 m + m^3)^2; with y of mean 0 the odd moments vanish, and E (x.y/D)^2 = (1 + m^2)/D is left.
    first, second, third = shift**2, (1 + shift**2) ** 2, (3 * shift + shift**3) ** 2
    square = (D * second + D * (D - 1) * first**2) / D**2
    cube = (D * third + 3 * D * (D - 1) * second * first + D * (D - 1) * (D - 2) * first**3) / D**3
    expected = (1 + 3 * first + 3 * square + cube) + (1 + 3 / D) - 2 * (1 + 3 * (1 + shift**2) / D)
    assert float(squared_mmd(x, y)) == pytest.approx(expected, rel=0.03)


def test_order_of_arrival_does_not_matter():
    samples, reference = draw(50, 1), draw(40, 2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    first = distance(samples, reference, KernelDistance(5, 10))
    assert distance(samples, reference, KernelDistance(5, 10), order) == first
    assert distance(samples[order], reference, KernelDistance(5, 10)) != first


def test_constant_sets():
    ones, twos = torch.ones(20, D), torch.full((20, D), 2.0)
    assert [float(value) for value in distance(ones, ones, KernelDistance(3, 10)).values()] == [0, 0]
    mean, std = distance(ones, twos, KernelDistance(3, 10)).values()
    assert float(mean) == pytest.approx(2**3 + 5**3 - 2 * 3**3)
    assert float(std) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("official", "keys"),
    [(True, ["kid@12", "kid_std@12"]), (False, ["kd_tiny-00000000@12", "kd_std_tiny-00000000@12"])],
)
def test_name_contains_the_weights_and_the_number(official, keys):
    assert list(distance(draw(12, 1), draw(12, 2), KernelDistance(2, 5), official=official)) == keys


@pytest.mark.parametrize(
    ("samples", "reference", "named"), [(9, 100, "num_samples=9"), (100, 7, "number of reference images=7")]
)
def test_sets_smaller_than_a_subset_are_refused(samples, reference, named):
    with pytest.raises(UserError, match=rf"{named} is too few for metrics\.kid\.subset_size=10"):
        KernelDistance(subset_size=10).check(Plan(samples, reference_of(reference), TinyExtractor()))
    KernelDistance(subset_size=10).check(Plan(10, reference_of(10), TinyExtractor()))


@pytest.mark.parametrize(
    ("samples", "message"),
    [([0, 1, 2, 3], "was given 4 of 5 samples"), ([0, 1, 2, 3, 3], "images were counted in twice")],
)
def test_missing_and_doubled_images_are_noticed(samples, message):
    def begun(index):
        metric = KernelDistance(2, 2)
        metric.begin(Plan(5, KnownReference(draw(3, 2)), TinyExtractor()))
        metric.update({"features": draw(len(index), 1)}, {}, torch.tensor(index))
        return metric

    begun([4, 3, 2, 1, 0]).compute()
    with pytest.raises(RuntimeError, match=message):
        begun(samples).compute()
