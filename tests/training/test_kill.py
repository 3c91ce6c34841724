"""A run that is killed without warning, in a process of its own."""

import signal

import pytest
from helpers.commands import wait_for
from training_helpers import LOSS_AWARE, QUIET, differing, started, train, trained

from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError

pytestmark = pytest.mark.e2e


def killed_at(directory, process, log):
    """Kill the process once it has logged ten steps; the step that it had saved."""
    metrics = directory / "metrics.csv"
    wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 11, process, log)
    process.kill()
    assert process.wait(120) == -signal.SIGKILL
    return read_checkpoint(directory / "checkpoints" / "last.ckpt")["global_step"]


@pytest.mark.parametrize(
    "extra", [pytest.param((), id="plain"), pytest.param(LOSS_AWARE, id="loss_aware", marks=pytest.mark.slow)]
)
def test_a_killed_run_resumes_to_the_same_end(tmp_path, monkeypatch, extra):
    options = (*QUIET, *extra, "callbacks.checkpoint.every_minutes=0.0005")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with started(tmp_path, *options, "trainer.max_steps=100000") as (process, log):
        step = killed_at(tmp_path / "run", process, log)
    assert step >= 1
    # A second kill, in the middle of saving, would have left this behind.
    leftover = tmp_path / "run" / "checkpoints" / ".last.ckpt.0123abcd"
    leftover.write_bytes((tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(UserError):
        read_checkpoint(leftover)

    resumed = train(tmp_path, *options, f"trainer.max_steps={step + 12}")
    assert f"from step {step} to {step + 12}" in resumed.out
    whole = train(tmp_path, *options, f"trainer.max_steps={step + 12}", name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert [row["step"] for row in whole.rows] == [str(number) for number in range(1, step + 13)]
    assert resumed.rows == whole.rows


@pytest.mark.slow
def test_a_run_killed_while_it_is_evaluated_resumes_to_the_same_values(tmp_path, monkeypatch, made):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    evaluated = "metrics=[class_accuracy]", "evaluation.every_n_steps=2", "evaluation.num_samples=40"
    options = (*QUIET, *evaluated, "evaluation.batch_size=2", "sampler.steps=30", "trainer.max_steps=4")
    samples = tmp_path / "run" / "evaluations"
    with started(tmp_path, *options) as (process, log):
        wait_for(lambda: len(list(samples.glob(".training-*/*.npz"))) >= 5, process, log)
    kept = 2 * len(list(samples.glob(".training-*/*.npz")))

    resumed = train(tmp_path, *options)
    assert len(made) == 2 * 40 - kept, "the weights are the same bits, and so are the samples that were there"
    assert not list(samples.glob(".training-*"))
    whole = train(tmp_path, *options, name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows
    assert [row["step"] for row in whole.rows if row["eval/class_accuracy"]] == ["2", "4"]
