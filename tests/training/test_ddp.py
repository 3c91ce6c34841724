"""Two processes on one machine: what several GPUs will do."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.commands import ROOT, call
from training_helpers import SPY, TINY, column, differing, read_csv, start, train, train_on_two, trained

from langevin.checkpoint import read_checkpoint
from langevin.training.module import DiffusionModule

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ddp")


@pytest.fixture(scope="module")
def run(folder):
    return train_on_two(
        folder, "trainer.max_steps=4", "trainer.accumulate_grad_batches=2", "callbacks.checkpoint.monitor=val/loss"
    )


@pytest.fixture(scope="module")
def ranks(folder, run):
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_it_trains_into_one_folder(run):
    assert [path.name for path in run.directory.parent.iterdir()] == ["run"]
    kept = {path.name for path in run.directory.iterdir()} - {".lock"}
    assert kept == {"checkpoints", "config.yaml", "data.json", "evaluations", "metrics.csv", "samples", "sessions.json"}
    (protocol,) = (run.directory / "evaluations").iterdir()
    assert protocol.name.startswith("protocol-"), "and the samples are gone"
    assert sorted(os.listdir(run.directory / "checkpoints")) == ["best.ckpt", "last-1.ckpt", "last.ckpt"]
    assert len(os.listdir(run.directory / "samples")) == 4
    assert read_checkpoint(run.last)["global_step"] == 4
    assert run.out.count("on cpu x 2") == 1
    assert "Traceback" not in run.err


def test_it_logs_once(run):
    rows = read_csv(run.directory / "metrics.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert list(column(rows, "val/loss")) == [2, 4]
    assert list(column(rows, "eval/class_accuracy")) == [2, 4]
    assert all(rate > 0 for rate in column(rows, "train/images_per_second").values())


def test_both_processes_have_the_same_weights(ranks, run):
    assert differing(ranks[0]["weights"], ranks[1]["weights"]) == []
    assert differing(ranks[0]["weights"], read_checkpoint(run.last)["state_dict"]) == []


def test_a_step_has_the_images_that_one_process_would_give_it(tmp_path, ranks, monkeypatch):
    seen = {}
    training_step = DiffusionModule.training_step

    def look(self, batch, batch_idx):
        seen[self.global_step] = batch["x"]
        return training_step(self, batch, batch_idx)

    monkeypatch.setattr(DiffusionModule, "training_step", look)
    train(tmp_path, "callbacks=[checkpoint]", "trainer.max_steps=4")
    assert list(seen) == [0, 1, 2, 3]
    for step, whole in seen.items():
        shares = [torch.cat([x for at, x in rank["seen"] if at == step]) for rank in ranks]
        assert [len(share) for share in shares] == [4, 4]
        assert torch.equal(torch.stack(shares, 1).flatten(0, 1), whole)


def test_the_evaluation_is_that_of_one_process(run):
    """The same numbers for the same weights, from the samples of `sample.py` in this one process."""
    place = run.directory / "one"
    assert call("sample", f"checkpoint={run.directory}", "num_samples=8", "seed=0", f"out={place}").status == 0
    options = ("data=digits", "metrics=[class_accuracy]", f"samples={place}")
    assert call("evaluate", *options).status == 0
    values = json.loads((place / "metrics.json").read_text())["metrics"]
    logged = column(read_csv(run.directory / "metrics.csv"), "eval/class_accuracy")
    assert logged[4] == pytest.approx(values["class_accuracy"], rel=1e-9)


@pytest.fixture(scope="module")
def sampled(folder, run):
    """An odd number of samples, by one process and by two, in other batches."""
    places = {count: folder / f"sampled_by_{count}" for count in (1, 2)}
    options = (
        f"checkpoint={run.directory}",
        "num_samples=45",
        "sampler=ancestral",
        "sampler.steps=3",
        "accelerator=cpu",
    )
    assert call("sample", *options, f"out={places[1]}").status == 0
    start(ROOT / "sample.py", *options, "devices=2", "batch_size=7", f"out={places[2]}")
    return places


@pytest.mark.slow
def test_two_processes_sample_the_very_same_images(sampled):
    one, two = (np.load(sampled[count] / "samples.npz") for count in (1, 2))
    assert one["arr_0"].shape == (45, 8, 8, 1)
    assert one["arr_0"].tobytes() == two["arr_0"].tobytes()
    assert one["arr_1"].tobytes() == two["arr_1"].tobytes() == (np.arange(45) % 10).tobytes()
    assert len(np.unique(one["arr_0"], axis=0)) == 45
    assert sorted(os.listdir(sampled[2])) == ["grid.png", "samples.npz"]


@pytest.mark.slow
def test_two_processes_measure_the_same(folder, sampled, tmp_path):
    options = (f"samples={sampled[1]}", "data=digits", "metrics=[class_accuracy]", "accelerator=cpu")
    assert call("evaluate", *options, f"out={tmp_path / 'one'}").status == 0
    start(ROOT / "evaluate.py", *options, "devices=2", "batch_size=7", f"out={tmp_path / 'two'}")
    one, two = (json.loads((tmp_path / count / "metrics.json").read_text())["metrics"] for count in ("one", "two"))
    assert one.keys() == two.keys() == {"class_accuracy"}
    assert one == pytest.approx(two, rel=1e-9)


@pytest.mark.slow
def test_a_resumed_run_on_two_processes_is_the_undisturbed_run(folder, run):
    options = ("trainer.accumulate_grad_batches=2", "callbacks.checkpoint.monitor=val/loss")
    train_on_two(folder / "again", *options, "trainer.max_steps=2")
    resumed = train_on_two(folder / "again", *options, "trainer.max_steps=4")
    assert "from step 2 to 4" in resumed.out
    assert differing(trained(resumed), trained(run)) == []
    assert resumed.rows == run.rows


@pytest.mark.slow
def test_a_full_disk_ends_all_processes(tmp_path):
    """The first process cannot save: it says so, and takes the other along instead of leaving it waiting."""
    (tmp_path / "spy.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n" + SPY
    )
    options = {option.partition("=")[0]: option for option in (*TINY, "callbacks=[checkpoint]", "trainer=ddp_cpu")}
    began = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            tmp_path / "spy.py",
            *options.values(),
            "trainer.max_steps=2",
            f"output_dir={tmp_path}",
            "name=run",
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "could not save" in done.stderr
    assert time.monotonic() - began < 100
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path).encode() in read(path)]


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""
