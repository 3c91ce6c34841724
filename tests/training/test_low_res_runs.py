"""Training on columns that are computed of the samples: the same for any number of processes, and resumed."""

import pytest
from training_helpers import QUIET, TINY, VALIDATED, column, differing, train, train_by, trained

LOW_RES = (
    *(*QUIET, *VALIDATED, "conditions=[class_label,low_res]"),
    *("conditions.low_res.size=4", "conditions.low_res.augmentation=noise", "conditions.low_res.dropout=0.2"),
)


@pytest.mark.slow
def test_training_measures_enlarged_held_out_images(tmp_path):
    metrics = ("metrics=[psnr]", "evaluation.num_samples=4", "evaluation.every_n_steps=3", "sampler.steps=2")
    run = train(tmp_path, *LOW_RES, *metrics)
    found = column(run.rows, "eval/psnr")
    assert len(found) >= 1
    assert all(0 < value < 30 for value in found)


@pytest.mark.slow
def test_the_curves_are_the_same_for_one_and_two_processes(tmp_path):
    runs = [train_by(processes, tmp_path, *TINY, *LOW_RES, "model.dropout=0") for processes in (1, 2)]
    for name in ("train/loss", "val/loss"):
        first, second = (column(run.rows, name) for run in runs)
        assert len(first) >= 3
        assert second == pytest.approx(first, rel=1e-4), name


@pytest.mark.slow
def test_a_resumed_run_draws_the_same(tmp_path):
    whole = train(tmp_path, *LOW_RES, name="whole")
    train(tmp_path, *LOW_RES, "trainer.max_steps=3")
    assert differing(trained(train(tmp_path, *LOW_RES)), trained(whole)) == []
