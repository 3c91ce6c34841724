"""Studies that are killed, or run by other launchers, in processes of their own."""

import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest
from helpers.commands import ROOT, wait_for
from study_helpers import QUIET, rows, study, write

from langevin.checkpoint import read_checkpoint
from langevin.interrupt import STATUS

pytestmark = pytest.mark.e2e

LOSS = {"train/loss": "down"}


def step(run):
    return read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "saves_every"), [(signal.SIGKILL, -signal.SIGKILL, 0.001), (signal.SIGTERM, STATUS, 60)]
)
def test_a_study_that_is_stopped_midway_resumes(tmp_path, monkeypatch, number, status, saves_every):
    """Amid its second run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    often = f"callbacks.checkpoint.every_minutes={saves_every}"
    base = [*QUIET, often, "trainer.max_steps=60", f"output_dir={tmp_path / 'runs'}"]
    folder = write(tmp_path, base=base, measures=LOSS, cells=["slow"])
    metrics, last = "runs/slow-seed1-*/metrics.csv", "runs/slow-seed1-*/checkpoints/last.ckpt"

    def is_midway():
        saved = saves_every > 1 or any(tmp_path.glob(last))  # what is killed outright saves nothing more
        return saved and any(path.read_text().count("\n") > 5 for path in tmp_path.glob(metrics))

    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "langevin.study", folder]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_for(is_midway, process, tmp_path / "log")
        process.send_signal(number)
        assert process.wait(120) == status
    finally:
        process.kill()
        process.wait()
    (run,) = tmp_path.glob("runs/slow-seed1-*")
    reached = step(run)
    assert 1 <= reached < 60
    if number is signal.SIGTERM:
        output = (tmp_path / "log").read_text()
        assert f"interrupted by SIGTERM at step {reached}; rerun the same command to resume" in output
        assert "Traceback" not in output
    again = study(folder).out
    assert "1 of them to train" in again
    assert f"from step {reached} to 60" in again
    assert step(run) == 60
    assert len(rows(folder / "table.csv")) == 2


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="pip install hydra-submitit-launcher")
def test_another_launcher(tmp_path, monkeypatch):
    """Jobs of submitit, each in a process of its own; one of them fails."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arms = {"good": [], "bad": ["data=image_folder", f"data.path={tmp_path / 'nowhere'}", "data.image_size=8"]}
    base = [*QUIET, "trainer.max_steps=2", f"output_dir={tmp_path / 'runs'}"]
    folder = write(tmp_path, base=base, factors={"data": arms}, seeds=[0], measures=LOSS)
    output = study(folder, "--", "hydra/launcher=submitit_local", status=1)
    assert "nowhere" in output.err.partition("not done: ")[2]
    assert [row["data"] for row in rows(folder / "table.csv")] == ["good"]
    assert len(list(tmp_path.glob("runs/.sweeps/.submitit/*/*_log.out"))) == 2
    unknown = study(folder, "--", "hydra/launcher=no_such", status=1)
    assert unknown.err.startswith("error: hydra/launcher=no_such: ")


@pytest.mark.slow
def test_runs_of_two_processes_one_after_the_other(tmp_path):
    """The second has a process group of its own, and its second process trains the second run."""
    base = [text for text in QUIET if not text.startswith("trainer.accelerator")]
    base += ["trainer=ddp_cpu", "trainer.max_steps=2", f"output_dir={tmp_path / 'runs'}"]
    folder = write(tmp_path, base=base, measures=LOSS, seeds=[0])
    command = [sys.executable, "-m", "langevin.study", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on cpu x 2") == 2
    assert [step(run) for run in tmp_path.glob("runs/*-seed0-*")] == [2, 2]
    sweep = [sys.executable, "train.py", "-m", *base, "seed=3,4"]
    done = subprocess.run(sweep, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert [step(run) for run in tmp_path.glob("runs/digits-*")] == [2, 2]
