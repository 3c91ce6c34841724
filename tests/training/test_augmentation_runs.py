"""Training on transformed samples: the same for any number of processes, and resumed; and nothing of it elsewhere."""

import pytest
import torch
from training_helpers import QUIET, TINY, VALIDATED, column, differing, train, train_by, trained

from langevin.conditions.low_res import shrunk
from langevin.images import from_uint8, to_uint8
from langevin.training.module import DiffusionModule

AUGMENTED = (*QUIET, *VALIDATED, "conditions=[class_label,augmentation]", "conditions.augmentation.probability=0.5")


@pytest.mark.slow
def test_the_curves_are_the_same_for_one_and_two_processes(tmp_path):
    given = (*TINY, *AUGMENTED, "model.dropout=0", "trainer.max_steps=3")
    runs = [train_by(processes, tmp_path, *given) for processes in (1, 2)]
    for name in ("train/loss", "val/loss"):
        first, second = (column(run.rows, name) for run in runs)
        assert len(first) >= 1
        assert second == pytest.approx(first, rel=1e-4), name


@pytest.mark.slow
def test_a_resumed_run_draws_the_same(tmp_path):
    whole = train(tmp_path, *AUGMENTED, name="whole")
    train(tmp_path, *AUGMENTED, "trainer.max_steps=3")
    assert differing(trained(train(tmp_path, *AUGMENTED)), trained(whole)) == []


def test_what_is_trained_on_and_what_is_validated(tmp_path, monkeypatch):
    """Small images are computed of the transformed ones, and the network is told; held-out images are left alone."""
    seen = {True: [], False: []}
    encoded = DiffusionModule.encoded

    def watched(self, batch, batch_idx, validation=False):
        seen[validation].append(batch)
        return encoded(self, batch, batch_idx, validation)

    monkeypatch.setattr(DiffusionModule, "encoded", watched)
    chosen = "conditions=[class_label,augmentation,low_res]", "conditions.low_res.size=4"
    train(tmp_path, *AUGMENTED, *chosen, "conditions.augmentation.rotation=0", "trainer.max_steps=2")
    trained_on, validated = (torch.cat([batch["x"] for batch in seen[validation]]) for validation in (False, True))
    assert torch.equal(from_uint8(to_uint8(validated)), validated), "as stored"
    assert not torch.equal(from_uint8(to_uint8(trained_on)), trained_on)
    assert all("augmentation" not in batch for batch in seen[True])
    for batch in seen[False]:
        assert batch["augmentation"].shape == (8, 7)
        assert torch.equal(batch["low_res"], shrunk(batch["x"], 4))
