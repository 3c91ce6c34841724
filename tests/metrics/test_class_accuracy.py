import numpy as np
import pytest
import torch
from helpers.digits import digits
from helpers.extractors import TinyExtractor

from langevin.errors import UserError
from langevin.metrics.base import Plan
from langevin.metrics.class_accuracy import ClassAccuracy
from langevin.metrics.reference import Reference


@pytest.fixture(scope="module")
def metric():
    images, labels = digits()
    metric = ClassAccuracy()
    metric.begin(Plan(397, Reference(images[:1400], labels[:1400]), TinyExtractor()))
    return metric


def accuracy(metric, labels):
    images = torch.from_numpy(digits()[0][1400:]).permute(0, 3, 1, 2)
    metric.reset()
    for part in torch.arange(397).split(64):
        metric.update({"stored": images[part]}, {"label": labels[part]}, part)
    return float(metric.compute()["class_accuracy"])


def test_unseen_real_digits_are_named_right(metric):
    assert 0.95 < accuracy(metric, torch.from_numpy(digits()[1][1400:])) < 1


def test_every_wrong_label_counts(metric):
    labels = torch.from_numpy(digits()[1][1400:])
    right = accuracy(metric, labels)
    wrong = labels.clone()
    wrong[:100] = 10  # no such class
    assert accuracy(metric, wrong) == pytest.approx(right - 100 / 397, abs=0.03)
    assert accuracy(metric, (labels + 1) % 10) < 0.05


def test_colour_images_keep_their_channels_apart():
    images = torch.zeros(40, 3, 4, 4, dtype=torch.uint8)
    labels = torch.arange(40) % 3
    images[torch.arange(40), labels] = 200
    metric = ClassAccuracy()
    metric.begin(Plan(40, Reference(images.permute(0, 2, 3, 1).numpy(), labels.numpy()), TinyExtractor()))
    metric.update({"stored": images}, {"label": labels}, torch.arange(40))
    assert float(metric.compute()["class_accuracy"]) == 1


def test_one_class_is_refused():
    images, labels = digits()
    with pytest.raises(UserError, match=r"metrics\.class_accuracy needs .* at least two classes"):
        ClassAccuracy().check(Plan(397, Reference(images[:10], labels[:10] * 0), TinyExtractor()))


def test_many_references_are_said_to_take_long(recwarn):
    labels = np.arange(20_001) % 3
    reference = Reference(np.zeros((20_001, 1, 1, 1), np.uint8), labels)
    ClassAccuracy().check(Plan(40, Reference(reference.samples[:20_000], labels[:20_000]), TinyExtractor()))
    assert not recwarn
    with pytest.warns(UserWarning, match="support vector machine to 20,001 reference images, which can take hours"):
        ClassAccuracy().check(Plan(40, reference, TinyExtractor()))
