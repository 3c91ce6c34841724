"""A run that is killed without warning, in a process of its own, ends in the bits of one that was not."""

import signal

from gpu_helpers import options
from helpers.commands import wait_for
from training_helpers import QUIET, differing, started, train, trained

from langevin.checkpoint import read_checkpoint


def test_a_killed_run_ends_in_the_same_bits(tmp_path, monkeypatch, device, record_property):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    deterministic = (*options(device, benchmark=False), "trainer.deterministic=true")
    arguments = (*QUIET, *deterministic, "callbacks.checkpoint.every_minutes=0.0005")
    metrics = tmp_path / "run" / "metrics.csv"
    with monkeypatch.context() as patch:
        patch.delenv("CUBLAS_WORKSPACE_CONFIG")  # the run itself sees to it
        with started(tmp_path, *arguments, "trainer.max_steps=100000") as (process, log):
            wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") >= 11, process, log)
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
    step = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"]
    record_property("killed after step", step)
    assert step >= 1
    resumed = train(tmp_path, *arguments, f"trainer.max_steps={step + 12}")
    assert f"from step {step} to {step + 12}" in resumed.out
    whole = train(tmp_path, *arguments, f"trainer.max_steps={step + 12}", name="whole")
    assert differing(trained(resumed), trained(whole)) == []
    assert resumed.rows == whole.rows
