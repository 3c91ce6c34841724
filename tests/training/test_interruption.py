"""Runs that a scheduler asks to stop, in processes of their own."""

import os
import signal
import sys

import pytest
from helpers.commands import call, wait_for
from helpers.processes import Script
from training_helpers import QUIET, TINY, VALIDATED, differing, read_csv, started, train, trained

from langevin.checkpoint import read_checkpoint
from langevin.interrupt import STATUS

pytestmark = pytest.mark.e2e

SELDOM = "callbacks.checkpoint.every_minutes=60"


@pytest.fixture(autouse=True)
def _one_thread_there(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def steps_of(directory):
    return len(read_csv(directory / "metrics.csv")) if (directory / "metrics.csv").exists() else 0


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGUSR1, signal.SIGINT))],
)
def test_a_run_saves_where_it_is_asked_to_stop_and_resumes_from_there(tmp_path, number):
    options = (*QUIET, SELDOM)
    with started(tmp_path, *options, "loader.num_workers=1", "trainer.max_steps=100000") as (process, log):
        wait_for(lambda: steps_of(tmp_path / "run") >= 5, process, log)
        process.send_signal(number)
        assert process.wait(120) == STATUS, log.read_text()
    output = log.read_text()
    step = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    assert f"interrupted by {number.name} at step {step}; rerun the same command to resume" in output
    assert "Traceback" not in output
    assert step == steps_of(tmp_path / "run") >= 5
    resumed = train(tmp_path, *options, f"trainer.max_steps={step + 3}")
    assert f"from step {step} to {step + 3}" in resumed.out
    whole = train(tmp_path, *options, f"trainer.max_steps={step + 3}", name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


@pytest.mark.slow
def test_a_run_is_asked_to_stop_while_it_is_evaluated(tmp_path, made):
    evaluated = "metrics=[class_accuracy]", "evaluation.every_n_steps=2", "evaluation.num_samples=40"
    options = (*QUIET, SELDOM, *evaluated, "evaluation.batch_size=2", "sampler.steps=30", "trainer.max_steps=4")
    samples = tmp_path / "run" / "evaluations"
    with started(tmp_path, *options) as (process, log):
        wait_for(lambda: len(list(samples.glob(".training-*/*.npz"))) >= 5, process, log)
        process.terminate()
        assert process.wait(120) == STATUS, log.read_text()
    assert "interrupted by SIGTERM while step 2 was evaluated" in log.read_text()
    kept = 2 * len(list(samples.glob(".training-*/*.npz")))
    assert kept < 40
    resumed = train(tmp_path, *options)
    assert len(made) == 2 * 40 - kept
    whole = train(tmp_path, *options, name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows


# Trains, and sends this process a signal amid the validation of step 4: rank 1's, where there are two.
SIGNALLED = """
import os, signal
import langevin.commands.train
from langevin.training.module import DiffusionModule

validation_step = DiffusionModule.validation_step

def step(self, batch, batch_idx):
    if self.global_step == 4 and batch_idx == 3 and self.global_rank == self.trainer.world_size - 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    print(f"rank {self.global_rank} validates batch {batch_idx} of step {self.global_step}", flush=True)
    validation_step(self, batch, batch_idx)

DiffusionModule.validation_step = step
langevin.commands.train.main()
"""


def signalled(folder, *options):
    """What a run says that is sent a signal amid a validation."""
    (folder / "signalled.py").write_text(SIGNALLED)
    arguments = {argument.partition("=")[0]: argument for argument in (*TINY, *options)}
    out, err = folder / "out", folder / "err"
    process = Script(
        folder / "signalled.py",
        *(*arguments.values(), f"output_dir={folder}", "name=run"),
        out=out,
        err=err,
        environment=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    status = process.wait(200)
    output = out.read_text() + err.read_text()
    assert status == STATUS, output
    assert "Traceback" not in output
    assert "interrupted by SIGUSR1 while step 4 was validated; rerun the same command to resume" in err.read_text()
    return output


@pytest.mark.slow
def test_a_run_is_asked_to_stop_while_it_is_validated(tmp_path):
    options = (*QUIET, *VALIDATED, "trainer.limit_val_batches=6", "callbacks.checkpoint.keep_every_n_steps=3")
    output = signalled(tmp_path, *options, SELDOM)
    assert "validates batch 3 of step 4" in output
    assert "validates batch 4 of step 4" not in output
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3
    resumed = train(tmp_path, *options)
    assert "from step 3 to 6" in resumed.out
    whole = train(tmp_path, *options, name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows
    assert [row["step"] for row in resumed.rows if row["val/loss"]] == ["2", "4", "6"]


@pytest.mark.slow
def test_of_two_processes_one_is_asked_to_stop_while_they_validate(tmp_path):
    options = (*QUIET, SELDOM, *VALIDATED, "batch_size=4", "trainer.limit_val_batches=40", "trainer=ddp_cpu")
    output = signalled(tmp_path, *options)
    for rank in range(2):
        assert f"rank {rank} validates batch 10 of step 4" in output
        assert f"rank {rank} validates batch 11 of step 4" not in output


@pytest.mark.slow
def test_two_processes_stop_at_one_step_though_one_alone_was_asked(tmp_path):
    """The first one's whole group is asked in SLURM; here only it is, and tells the other."""
    options = (*QUIET, SELDOM, "trainer.devices=2", "trainer.strategy=fsdp")
    with started(tmp_path, *options, "trainer.max_steps=100000") as (process, log):
        wait_for(lambda: steps_of(tmp_path / "run") >= 5, process, log)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(90) == STATUS, log.read_text()
    step = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    assert step % 10 == 0
    ends = []
    for folder in (tmp_path, tmp_path / "whole"):
        folder.mkdir(exist_ok=True)
        with started(folder, *options, f"trainer.max_steps={step + 2}") as (process, log):
            assert process.wait(120) == 0, log.read_text()
        ends.append(read_checkpoint(folder / "run" / "checkpoints" / "last.ckpt")["state_dict"])
    assert differing(*ends) == []


@pytest.mark.slow
def test_without_a_checkpoint_callback_it_stops_all_the_same(tmp_path):
    with started(tmp_path, "callbacks=[progress]", "trainer.max_steps=100000") as (process, log):
        wait_for(lambda: steps_of(tmp_path / "run") >= 5, process, log)
        process.terminate()
        assert process.wait(120) == STATUS, log.read_text()
    assert call("sample", f"checkpoint={tmp_path / 'run'}").status == 1, "nothing was saved"
