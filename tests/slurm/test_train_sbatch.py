"""slurm/train.sbatch on a real SLURM of two nodes: what is interrupted ends as what is not."""

import re
import sys

import pytest
from helpers.commands import ROOT
from slurm_cluster import wait_for
from training.training_helpers import QUIET, TINY, Run, differing, read_csv, train_on_two, trained

pytestmark = pytest.mark.slow


def submit(cluster, folder, *arguments, flags=()):
    """Put slurm/train.sbatch into the queue: the job's number."""
    flags = ("--parsable", "--cpus-per-task=1", f"--chdir={ROOT}", f"--output={folder}/%x.out", *flags)
    command = ("sbatch", *flags, str(ROOT / "slurm" / "train.sbatch"), *arguments, f"output_dir={folder}")
    return cluster.run(*command, PYTHON=sys.executable).strip()


def steps_of(run):
    """How many steps the log of a run tells of."""
    return len(read_csv(run / "metrics.csv")) if (run / "metrics.csv").is_file() else 0


@pytest.fixture(scope="module")
def options():
    """A run of some seconds."""
    return tuple(option for option in TINY if not option.startswith("trainer.max_steps")) + QUIET


def test_a_run_on_two_nodes_requeued_twice_is_the_undisturbed_run(cluster, options, tmp_path):
    steps = "trainer.max_steps=150"
    job = submit(cluster, tmp_path, *options, steps, "name=run", flags=("--nodes=2", "--job-name=two"))
    run = tmp_path / "run"
    wait_for(lambda: steps_of(run) > 20, 120, "20 steps")
    cluster.run("scancel", "--signal=USR1", job)  # as SLURM sends before the time limit
    wait_for(lambda: steps_of(run) > 70, 120, "70 steps")
    cluster.run("scontrol", "requeue", job)
    end = cluster.wait(job)
    out = (tmp_path / "two.out").read_text()
    assert (end["JobState"], end["Restarts"], end["NumNodes"]) == ("COMPLETED", "2", "2"), out

    begins = [int(step) for step in re.findall(r"from step (\d+) to 150; .* on cpu x 2", out)]
    assert len(begins) == 3
    assert 0 == begins[0] < begins[1] < begins[2] < 150, "it went on where it was"
    undisturbed = train_on_two(tmp_path / "undisturbed", steps, options=QUIET)
    resumed = Run(0, out, "", run)
    assert differing(trained(resumed), trained(undisturbed)) == []
    assert resumed.rows == undisturbed.rows


def test_an_array_runs_a_line_of_its_file_in_each_task(cluster, options, tmp_path):
    """Two processes on one node each; a task that cannot run says why, and fails alone."""
    cells = tmp_path / "cells.txt"
    cells.write_text("schedule=linear seed=1 name=run\ntrainer.devices=1 name=refused\n")
    flags = ("--array=1-3", "--ntasks-per-node=2", "--gpus-per-node=2", "--job-name=array")
    free = [option for option in options if not option.startswith("schedule")]
    array = submit(cluster, tmp_path, str(cells), *free, "trainer.max_steps=6", flags=flags)
    states = [cluster.wait(f"{array}_{task}")["JobState"] for task in (1, 2, 3)]
    out = (tmp_path / "array.out").read_text()
    assert states == ["COMPLETED", "FAILED", "FAILED"], out
    assert "is 1 and num_nodes=1, but SLURM started 2 tasks" in out, "Lightning would train on half of the data"
    assert f"error: {cells} has no line 3; allowed: --array=1-2" in out
    choices = ("schedule=linear", "seed=1", "trainer.max_steps=6")
    undisturbed = train_on_two(tmp_path / "undisturbed", *choices, options=QUIET)
    assert differing(trained(Run(0, "", "", tmp_path / "run")), trained(undisturbed)) == []
