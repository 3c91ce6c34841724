from functools import partial

import pytest
import torch
from network_helpers import CONF, randomize, tiny
from omegaconf import OmegaConf

from langevin.conditions.class_label import ClassLabel
from langevin.errors import UserError

NO_LABELS = torch.full((4,), -1)


def labelled(dropout=0.0):
    network = tiny(condition=partial(ClassLabel, num_classes=10, dropout=dropout))
    randomize(network)
    return network.eval()


@pytest.fixture
def images():
    return torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.0, 1.0, 20.0, 999.0])


def test_no_label_equals_no_condition(images):
    network = labelled()
    assert torch.equal(network(*images, {"label": NO_LABELS}), network(*images))


def test_every_class_gives_another_output(images):
    network = labelled()
    x, times = images[0][:1].expand(11, -1, -1, -1), images[1][:1].expand(11)
    outputs = network(x, times, {"label": torch.arange(-1, 10)}).flatten(1)
    distances = torch.cdist(outputs, outputs) + torch.eye(11)
    assert distances.min() > 1e-3


def test_a_label_reaches_its_own_sample_only(images):
    network = labelled()
    before = network(*images, {"label": torch.tensor([0, 1, 2, 3])})
    after = network(*images, {"label": torch.tensor([0, 1, 5, 3])})
    changed = (before != after).flatten(1).any(dim=1)
    assert changed.tolist() == [False, False, True, False]


def test_a_network_drops_labels_only_when_asked(images):
    network = labelled(dropout=1.0).train()
    labels = {"label": torch.tensor([0, 1, 2, 3])}
    withheld = network.drop(labels, lambda: torch.rand(4))
    assert torch.equal(network(*images, withheld), network(*images))
    assert not torch.equal(network(*images, labels), network(*images))


def test_a_network_without_a_condition_drops_nothing():
    labels = {"label": torch.tensor([0, 1, 2, 3])}
    assert tiny().drop(labels, lambda: torch.zeros(4)) == labels


def test_labels_are_dropped_as_often_as_asked():
    condition = ClassLabel(num_classes=3, dropout=0.3, dim=4)
    labels = {"label": torch.ones(10_000, dtype=torch.int64)}
    drawn = torch.rand(10_000, generator=torch.Generator().manual_seed(0))
    label = condition.drop(labels, lambda: drawn)["label"]
    assert torch.equal(label == -1, drawn < 0.3)
    assert torch.equal(label == 1, drawn >= 0.3)


def test_null_condition_is_unconditional(images):
    network = labelled()
    cond = {"label": torch.tensor([0, 1, 2, 3])}
    null = network.null_condition(cond)
    assert torch.equal(null["label"], NO_LABELS)
    assert null["label"].dtype == torch.int64
    assert cond["label"].tolist() == [0, 1, 2, 3]
    assert network.null_condition(None) is None


def test_an_unconditional_network_ignores_labels(images):
    network = tiny()
    randomize(network)
    assert torch.equal(network(*images, {"label": torch.arange(4)}), network(*images))


@pytest.mark.parametrize("label", [10, -2, 1000])
def test_labels_out_of_range(images, label):
    with pytest.raises(UserError, match=f"label: {label} is out of range: 0 to 9, or -1"):
        labelled()(*images, {"label": torch.tensor([0, 9, label, -1])})


def test_preset():
    node = OmegaConf.load(CONF / "conditions" / "class_label.yaml")
    assert dict(node) == {"class_label": {"_target_": "langevin.conditions.class_label.ClassLabel", "dropout": 0.1}}
