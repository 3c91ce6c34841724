"""A study whose runs are jobs of a cluster."""

import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml
from helpers.commands import ROOT
from slurm_cluster import wait_for
from study.study_helpers import QUIET, rows, write

STEPS = 150


@pytest.mark.slow
@pytest.mark.skipif(find_spec("submitit") is None, reason="pip install hydra-submitit-launcher")
def test_a_study_on_a_cluster_loses_nothing(cluster, tmp_path):
    """Each run is a job, and then each evaluation; one job is preempted, and resumes."""
    base = [*QUIET, "conditions=[class_label]", "sampler.steps=2", f"trainer.max_steps={STEPS}"]
    evaluate = {
        "base": ["metrics=[class_accuracy]", "num_samples=20", "accelerator=cpu"],
        "factors": {"steps": {"few": "sampler.steps=1", "more": "sampler.steps=4"}},
    }
    changes = {"base": [*base, f"output_dir={tmp_path / 'runs'}"], "evaluate": evaluate, "seeds": [0]}
    folder = write(tmp_path / "study", **changes, measures={"class_accuracy": "up"})
    here = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=main")
    command = [sys.executable, "-m", "langevin.study", folder, "--", *here]
    with (tmp_path / "log").open("w") as log:
        launched = subprocess.Popen(command, cwd=ROOT, env=cluster.environment, stdout=log, stderr=log)

    def under_way():
        logs = list(tmp_path.glob("runs/*-seed0-*/metrics.csv"))
        return len(logs) == 2 and all(len(rows(path)) > 5 for path in logs)

    wait_for(under_way, 180, "two runs")
    job = cluster.run("squeue", "-hr", "-o%i").split()[0]
    cluster.run("scancel", "--signal=USR2", job)
    assert launched.wait(300) == 0, (tmp_path / "log").read_text()
    assert cluster.job(job)["Restarts"] == "1"
    for run in tmp_path.glob("runs/*-seed0-*"):
        assert [int(row["step"]) for row in rows(run / "metrics.csv")] == list(range(1, STEPS + 1))
        assert yaml.safe_load((run / "config.yaml").read_text())["seed"] == 0
    assert len(rows(folder / "table.csv")) == 4
    again = subprocess.run(command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, check=False)
    assert "0 of them to train" in again.stdout
    assert "0 evaluations to make" in again.stdout
