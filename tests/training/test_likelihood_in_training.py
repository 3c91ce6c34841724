"""Bits per dimension at every validation."""

import json
import math
import os
import subprocess
import sys

import pytest
from helpers.commands import ROOT, call
from training_helpers import QUIET, TINY, VALIDATED, column, differing, read_csv, train, trained

CHOSEN = (
    "likelihoods=[discrete_vlb,continuous_vlb,probability_flow]",
    "schedule.num_steps=20",
    "likelihoods.discrete_vlb.num_times=2",
    "likelihoods.continuous_vlb.num_times=2",
    "likelihoods.probability_flow.steps=1",
)
# Twice, over a few test images, or over all of them.
SOME = ("trainer.val_check_interval=3", "trainer.limit_val_batches=1", "batch_size=8")
WHOLE = ("trainer.val_check_interval=3", "trainer.limit_val_batches=1.0", "batch_size=100")
PARTS = {
    "discrete_vlb": ("prior", "steps", "decoder"),
    "continuous_vlb": ("prior", "diffusion", "decoder"),
    "probability_flow": ("prior", "volume", "encoder", "decoder"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("measured"), *QUIET, *VALIDATED, *SOME, *CHOSEN)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), *QUIET, *VALIDATED, *WHOLE, *CHOSEN)


def test_it_is_logged_with_its_parts(run):
    for name, parts in PARTS.items():
        bits = column(run.rows, f"val/{name}")
        assert list(bits) == [3, 6]
        assert all(1 < value < math.inf for value in bits.values())
        for step, value in bits.items():
            total = sum(column(run.rows, f"val/{name}/{part}")[step] for part in parts)
            assert total == pytest.approx(value, rel=1e-5)
    assert not [column for column in run.rows[0] if "terms" in column]
    assert len(set(column(run.rows, "val/discrete_vlb").values())) == 2, "the model learns"


@pytest.mark.slow
def test_it_is_what_evaluate_says_of_the_checkpoint(whole):
    """So it is of the EMA weights, of the test images with their labels, each with its own noise."""
    options = [option for option in CHOSEN if not option.startswith("schedule")]
    result = call("evaluate", f"checkpoint={whole.directory}", *options, "batch_size=64", "accelerator=cpu")
    assert result.status == 0, result.err
    report = json.loads((whole.directory / "likelihood.json").read_text())
    assert report["step"] == 6
    assert report["images"]["number"] == 297
    for name, parts in PARTS.items():
        values = report["likelihoods"][name]
        assert column(whole.rows, f"val/{name}")[6] == pytest.approx(values["bits_per_dim"], rel=1e-5)
        for part in parts:
            assert column(whole.rows, f"val/{name}/{part}")[6] == pytest.approx(values[part], rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_two_processes_log_what_one_would(tmp_path):
    """What one process says of their checkpoint. They share 297 images, an odd number, in batches of 50."""
    arguments = (*TINY, *QUIET, *VALIDATED, *WHOLE, *CHOSEN, "trainer=ddp_cpu", f"output_dir={tmp_path}", "name=run")
    options = {argument.partition("=")[0]: argument for argument in arguments}
    done = subprocess.run(
        [sys.executable, ROOT / "train.py", *options.values()],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    rows = read_csv(tmp_path / "run" / "metrics.csv")
    chosen = [option for option in CHOSEN if not option.startswith("schedule")]
    result = call("evaluate", f"checkpoint={tmp_path / 'run'}", *chosen, "accelerator=cpu")
    assert result.status == 0, result.err
    values = json.loads((tmp_path / "run" / "likelihood.json").read_text())["likelihoods"]
    for name in PARTS:
        assert column(rows, f"val/{name}")[6] == pytest.approx(values[name]["bits_per_dim"], rel=1e-5)


def test_measuring_changes_nothing(tmp_path, run):
    plain = train(tmp_path, *QUIET, *VALIDATED, *SOME, "schedule.num_steps=20")
    assert differing(trained(plain), trained(run)) == []
    assert column(plain.rows, "val/loss") == column(run.rows, "val/loss")
    assert column(plain.rows, "train/loss") == column(run.rows, "train/loss")


@pytest.mark.slow
def test_every_validation_has_the_same_noise(tmp_path):
    frozen = train(tmp_path, *QUIET, *VALIDATED, *CHOSEN, "batch_size=20", "optimizer.lr=1e-30")
    for name in PARTS:
        assert len(set(column(frozen.rows, f"val/{name}").values())) == 1


def test_the_best_checkpoint_can_be_that_of_the_likelihood(tmp_path):
    run = train(
        tmp_path,
        *QUIET,
        *VALIDATED,
        "likelihoods=[discrete_vlb]",
        "likelihoods.discrete_vlb.num_times=1",
        "callbacks.checkpoint.monitor=val/discrete_vlb",
    )
    assert (run.directory / "checkpoints" / "best.ckpt").is_file()


def test_it_reports_it_where_there_is_no_validation(tmp_path):
    run = train(tmp_path, *QUIET, "likelihoods=[discrete_vlb]", status=1)
    assert (
        "likelihoods=[discrete_vlb]: are measured at each validation, and there is none; set trainer.val_check_interval"
        in run.err
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("schedule.num_steps=null", "likelihoods=[discrete_vlb]"),
            "likelihoods.discrete_vlb: DiscreteVLB is a sum over discrete steps, but the schedule is continuous; "
            "allowed: likelihoods=[continuous_vlb], likelihoods=[probability_flow], or a schedule with num_steps",
        ),
        (
            ("likelihoods=[continuous_vlb]", "likelihoods.continuous_vlb.num_times=0"),
            "likelihoods.continuous_vlb.num_times: is 0; allowed: a whole number, at least 1",
        ),
        (
            ("likelihoods=[probability_flow]", "likelihoods.probability_flow.log_snr_max=-20"),
            "likelihoods.probability_flow.log_snr_max: is -20; allowed: above log_snr_min (-15.0)",
        ),
        (
            ("likelihoods=[continuous_vlb]", "likelihoods.continuous_vlb.log_snr_min=30"),
            "likelihoods.continuous_vlb.log_snr_max: is 13.3; allowed: above log_snr_min (30",
        ),
    ],
)
def test_a_mistake(tmp_path, options, words):
    run = train(tmp_path, *QUIET, *VALIDATED, *options, status=1)
    assert words in run.err
    assert not run.directory.exists()
