import pytest
import torch
from helpers.extractors import TinyExtractor
from helpers.measured import measured, reference_of
from torch_fidelity.metric_isc import isc_features_to_metric

from langevin.config.signature import signature
from langevin.config.types import fits
from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.inception_score import InceptionScore

CLASSES = TinyExtractor.sizes["logits"]


def score(logits, splits=10, order=None, official=False):
    return measured(InceptionScore(splits), {"logits": logits}, reference_of(1), order=order, official=official)


def logits(count, seed=0):
    return 3 * torch.randn(count, CLASSES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "splits"), [(100, 10), (97, 10), (10, 10), (50, 1), (23, 4)])
def test_equals_torch_fidelity(count, splits):
    expected = isc_features_to_metric(logits(count), splits)
    mean, std = score(logits(count), splits).values()
    assert float(mean) == pytest.approx(expected["inception_score_mean"], rel=1e-12)
    assert float(std) == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=1e-12)


def test_order_of_arrival_does_not_matter():
    order = torch.randperm(97, generator=torch.Generator().manual_seed(1))
    first, second = score(logits(97)), score(logits(97), order=order)
    assert {name: pytest.approx(float(x), rel=1e-12) for name, x in first.items()} == second


def test_certain_and_balanced_classes_score_their_number():
    certain = 1e4 * torch.eye(CLASSES).repeat(3, 1)
    mean, std = score(certain, splits=1).values()
    assert float(mean) == pytest.approx(CLASSES)
    assert float(std) == 0


def test_equal_images_score_one():
    mean, std = score(logits(1).repeat(30, 1)).values()
    assert float(mean) == pytest.approx(1)
    assert float(std) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("official", "keys"),
    [
        (True, ["inception_score@20", "inception_score_std@20"]),
        (False, ["classifier_score_tiny-00000000@20", "classifier_score_std_tiny-00000000@20"]),
    ],
)
def test_name_contains_the_weights_and_the_number(official, keys):
    assert list(score(logits(20), official=official)) == keys


def test_fewer_samples_than_splits_are_refused():
    with pytest.raises(UserError, match=r"num_samples=9 is too few for metrics\.inception_score\.splits=10"):
        InceptionScore().check(Plan(9, reference_of(1), TinyExtractor()))
    InceptionScore().check(Plan(10, reference_of(1), TinyExtractor()))


def test_no_splits_are_refused():
    annotation = signature("langevin.metrics.inception_score.InceptionScore")["splits"].annotation
    assert not fits(0, annotation)
    assert fits(1, annotation)
