"""hydra/launcher=slurm: a grid in one command, a job for each of its cells."""

import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml
from helpers.commands import ROOT
from hydra import compose, initialize_config_dir
from slurm_cluster import wait_for
from training.training_helpers import QUIET, TINY, Run, differing, read_csv, train, trained

from langevin import cli
from langevin.config.validate import CONF
from langevin.errors import UserError

needs_launcher = pytest.mark.skipif(find_spec("submitit") is None, reason="pip install hydra-submitit-launcher")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"hydra/launcher=slurm needs the package hydra-submitit-launcher: pip install"):
        cli.force_add_override("hydra/launcher=slurm", [])
    assert cli.force_add_override("hydra/launcher=basic", []) == "hydra/launcher=basic", "which is Hydra's own"


@needs_launcher
@pytest.mark.parametrize(
    ("command", "overrides", "nodes", "tasks"),
    [
        ("train", (), 1, 1),
        ("train", ("trainer.devices=4", "trainer.num_nodes=2"), 2, 4),
        ("evaluate", ("checkpoint=run", "devices=3"), 1, 3),
    ],
)
def test_a_job_has_a_task_and_a_gpu_for_each_device(command, overrides, nodes, tasks):
    """What else there is, Lightning takes to be a part of the run or leaves idle."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, ["hydra/launcher=slurm", *overrides], return_hydra_config=True)
        launcher = cfg.hydra.launcher
        assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (nodes, tasks, tasks)


GRID = [(schedule, seed) for schedule in ("linear", "cosine") for seed in (0, 1)]
STEPS = "trainer.max_steps=120"


@pytest.fixture
def sweep(cluster, tmp_path):
    """Starts the sweep of four cells."""
    grid = ("schedule=linear,cosine", "seed=0,1", STEPS)
    here = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.partition=main")
    options = {option.partition("=")[0]: option for option in (*TINY, *QUIET, *grid, *here)}

    def start():
        command = [sys.executable, "train.py", "-m", *options.values(), f"output_dir={tmp_path / 'outputs'}"]
        return subprocess.Popen(command, cwd=ROOT, env=cluster.environment, stdout=subprocess.DEVNULL)

    return start


def runs_in(folder):
    """The runs of a sweep by their schedule and seed."""
    configs = [(path, yaml.safe_load(path.read_text())) for path in folder.glob("outputs/*/config.yaml")]
    return {
        (config["schedule"]["_target_"].rpartition(".")[2].lower(), config["seed"]): Run(0, "", "", path.parent)
        for path, config in configs
    }


def under_way(run):
    log = run.directory / "metrics.csv"
    return log.is_file() and len(read_csv(log)) > 5


def logs_in(folder):
    return [path.read_text() for path in folder.glob("outputs/.sweeps/.submitit/*/*_log.out")]


@pytest.mark.slow
@needs_launcher
def test_a_sweep_loses_nothing_and_rerun_trains_only_what_is_missing(cluster, sweep, tmp_path):
    launched = sweep()
    wait_for(lambda: [under_way(run) for run in runs_in(tmp_path).values()] == [True] * 4, 120, "four runs")
    job = cluster.run("squeue", "-hr", "-o%i").split()[0]
    cluster.run("scancel", "--signal=USR2", job)  # as submitit asks SLURM to send before the time limit
    assert launched.wait(200) == 0
    assert cluster.job(job)["Restarts"] == "1"
    (interrupted,) = (log for log in logs_in(tmp_path) if "interrupted by SIGUSR2 at step" in log)
    assert len(re.findall(r"from step \d+ to 120;", interrupted)) == 2
    runs = runs_in(tmp_path)
    assert sorted(runs) == sorted(GRID)
    for schedule, seed in GRID:
        options = (*QUIET, f"schedule={schedule}", f"seed={seed}", STEPS)
        undisturbed = train(tmp_path / "undisturbed", *options, name=f"{schedule}-{seed}")
        assert differing(trained(runs[schedule, seed]), trained(undisturbed)) == []

    script = next(tmp_path.glob("outputs/.sweeps/.submitit/*/*_submission.sh")).read_text()
    assert "#SBATCH --partition=main\n" in script
    assert not re.search("--(account|qos|constraint|mem)", script), "what is null is left to the cluster"

    missing = runs["cosine", 1].last
    saved = {run.last: run.last.stat().st_mtime_ns for run in runs.values()}
    missing.unlink()
    assert sweep().wait(200) == 0
    assert [path for path, time in saved.items() if path.stat().st_mtime_ns != time] == [missing]
    assert sum("is done: it stands at step 120" in log for log in logs_in(tmp_path)) == 3
