import numpy as np
import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import KnownReference, measured, reference_of

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.fid import FrechetDistance
from langevin.metrics.fid_by_class import FrechetDistanceByClass

D = TinyExtractor.sizes["features"]
LABELS = torch.tensor([2, 5, 7])


def draw(count, seed):
    """Features of three classes in turn, of different means and scales, and their labels."""
    labels = LABELS[torch.arange(count) % 3]
    noise = torch.randn(count, D, generator=torch.Generator().manual_seed(seed))
    return noise * (1 + labels[:, None] / 5) + labels[:, None], labels


def by_singular_values(samples, reference):
    """Exact also for singular covariances."""
    x1, x2 = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (samples.double().numpy(), reference.double().numpy()))
    shift = samples.double().mean(0) - reference.double().mean(0)
    trace = np.linalg.svd(x1 @ x2.T, compute_uv=False).sum()
    return float(shift.square().sum()) + np.square(x1).sum() + np.square(x2).sum() - 2 * trace


def values(samples, labels, reference, reference_labels, order=None, official=False, each=True):
    known = KnownReference(reference, reference_labels.numpy())
    metric = FrechetDistanceByClass(min_samples=2, each=each)
    return {
        name: float(value)
        for name, value in measured(metric, {"features": samples}, known, labels, order, official).items()
    }


@pytest.mark.parametrize("count", [12, 3 * D, 300])  # fewer in a class than features, as many, more
def test_each_class_has_its_own_distance(count):
    (samples, labels), (reference, reference_labels) = draw(count, 1), draw(240, 2)
    expected = [by_singular_values(samples[labels == c], reference[reference_labels == c]) for c in LABELS]
    mean, *each = values(samples, labels, reference, reference_labels).values()
    assert each == pytest.approx(expected, rel=1e-9)
    assert mean == pytest.approx(np.mean(expected), rel=1e-9)


def test_classes_count_the_same_whatever_their_sizes():
    (samples, labels), (reference, reference_labels) = draw(300, 1), draw(240, 2)
    kept = (labels == 7) | (torch.arange(300) % 2 == 0)
    samples, labels = samples[kept], labels[kept]
    mean, *each = values(samples, labels, reference, reference_labels).values()
    assert mean == pytest.approx(np.mean(each), rel=1e-12)


def test_one_class_only_is_fid():
    samples, reference = draw(90, 1)[0], draw(80, 2)[0]
    (fid,) = measured(FrechetDistance(2), {"features": samples}, KnownReference(reference)).values()
    ones = torch.ones(90, dtype=torch.int64)
    mean, only = values(samples, ones, reference, ones[:80]).values()
    assert mean == only == pytest.approx(float(fid), rel=1e-10)


def test_it_sees_classes_that_are_mixed_up_where_fid_does_not():
    features, labels = draw(300, 1)
    assert values(features, labels, features, labels, each=False) == {
        "fd_by_class_tiny-00000000@300": pytest.approx(0, abs=1e-6)
    }
    (mixed_up,) = values(features, labels.roll(1), features, labels, each=False).values()
    assert mixed_up > 10


def test_constant_images():
    ones = torch.ones(30, D)
    labels = LABELS[torch.arange(30) % 3]
    assert list(values(ones, labels, ones, labels).values()) == [0, 0, 0, 0]
    assert list(values(ones, labels, 3 * ones, labels).values()) == pytest.approx([4 * D] * 4)


def test_order_of_arrival_does_not_matter():
    (samples, labels), (reference, reference_labels) = draw(100, 1), draw(90, 2)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(5))
    first = values(samples, labels, reference, reference_labels)
    assert values(samples, labels, reference, reference_labels, order) == first


@pytest.mark.parametrize(
    ("official", "each", "keys"),
    [
        (True, False, ["fid_by_class@12"]),
        (True, True, ["fid_by_class@12", "fid_class_2@12", "fid_class_5@12", "fid_class_7@12"]),
        (False, False, ["fd_by_class_tiny-00000000@12"]),
        (
            False,
            True,
            [f"fd_{name}_tiny-00000000@12" for name in ("by_class", "class_2", "class_5", "class_7")],
        ),
    ],
)
def test_name_contains_the_weights_and_the_number(official, each, keys):
    assert list(values(*draw(12, 1), *draw(12, 2), official=official, each=each)) == keys


def plan(labels, of_reference):
    reference = reference_of(len(of_reference), np.asarray(of_reference))
    return Plan(len(labels), reference, TinyExtractor(), {"label": torch.as_tensor(labels)})


def test_too_few_images_are_refused_before_any_work():
    metric = FrechetDistanceByClass()
    labels, enough = np.repeat([2, 5], [16, 15]), np.repeat([2, 5], 16)
    with pytest.raises(UserError, match=r"class 5 has 15 images, too few for metrics\.fid_by_class, .* asks for 16"):
        metric.check(plan(enough, labels))
    metric.check(plan(enough, enough))
    few = r"class 5 has 15 of 31 samples, too few .*fid_by_class\.min_samples lower"
    with pytest.raises(UserError, match=few):
        metric.check(plan(labels, enough))
    FrechetDistanceByClass(15).check(plan(labels, labels))


def test_a_class_without_samples_and_one_without_a_reference_are_refused():
    labels = draw(30, 1)[1]
    metric = FrechetDistanceByClass(min_samples=2)
    metric.check(plan(labels, labels))
    with pytest.raises(UserError, match=r"class 2 has 0 of 30 samples, too few"):
        metric.check(plan(labels.clip(min=5), labels))
    with pytest.raises(UserError, match=r"no reference image is of class 9, but samples are"):
        metric.check(plan(torch.where(labels == 7, 9, labels), labels))
