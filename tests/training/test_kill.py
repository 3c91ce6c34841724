"""A run that is killed without warning, in a process of its own."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_helpers import LOSS_AWARE, QUIET, TINY, differing, train, trained

from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def killed_at(directory, process, log):
    """Kill the process once it has logged ten steps; the step that it had saved."""
    deadline = time.monotonic() + 120
    metrics = directory / "metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 11:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    return read_checkpoint(directory / "checkpoints" / "last.ckpt")["global_step"]


@pytest.mark.parametrize(
    "extra", [pytest.param((), id="plain"), pytest.param(LOSS_AWARE, id="loss_aware", marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_same_end(tmp_path, monkeypatch, extra):
    options = (*QUIET, *extra, "callbacks.checkpoint.every_minutes=0.0005")
    log = tmp_path / "log"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = {argument.partition("=")[0]: argument for argument in (*TINY, *options, "trainer.max_steps=100000")}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, ROOT / "train.py", *arguments.values(), f"output_dir={tmp_path}", "name=run"],
            stdout=file,
            stderr=file,
        )
        try:
            step = killed_at(tmp_path / "run", process, log)
        finally:
            process.kill()
            process.wait()
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
