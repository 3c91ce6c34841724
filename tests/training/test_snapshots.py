"""Runs with ema=power: their snapshots, and what is made of them."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import ROOT, call
from training_helpers import QUIET, TINY, Run, start

import langevin
from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError
from langevin.weights import read_weights

pytestmark = pytest.mark.e2e

POWER = (
    *(option for option in TINY if not option.startswith("ema.")),
    *QUIET,
    "ema=power",
    "ema.snapshot_every=2",
    "trainer.max_steps=11",
)


def train(folder, *overrides, name="run"):
    arguments = {each.partition("=")[0]: each for each in (*POWER, *overrides, f"output_dir={folder}", f"name={name}")}
    run = Run(*call("train", *arguments.values()), folder / name)
    assert run.status == 0, run.err
    return run


def files(run):
    return {path.name: path.read_bytes() for path in (run.directory / "snapshots").iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("power"))


def test_snapshots_are_the_averages_of_their_steps(whole, tmp_path):
    assert sorted(files(whole)) == [f"step_{step:08d}.safetensors" for step in (2, 4, 6, 8, 10)]
    size = 2 * 4 * 176_449 / 2**20
    assert "176,449 parameters" in whole.out
    assert f"snapshots: 5 more, of {size:.1f} MiB each, take {5 * size:.1f} MiB" in whole.out
    early = read_checkpoint(train(tmp_path, "trainer.max_steps=4").last)["state_dict"]
    snapshot = read_weights(whole.directory / "snapshots" / "step_00000004.safetensors")
    for width, prefix in ((0.05, "ema.network."), (0.1, "ema.others.0.")):
        own = {
            name.removeprefix(f"{width}."): value for name, value in snapshot.items() if name.startswith(f"{width}.")
        }
        assert own
        assert all(torch.equal(value, early[prefix + name]) for name, value in own.items())


@pytest.mark.slow
def test_a_killed_run_has_the_same_snapshots(whole, tmp_path):
    """It had come to step 7, of which its last checkpoint, of step 3, knows nothing."""
    run = train(tmp_path, "trainer.max_steps=3")
    kept = {path: path.read_bytes() for path in (run.directory / "checkpoints").iterdir()}
    train(tmp_path, "trainer.max_steps=7")
    for path in (run.directory / "checkpoints").iterdir():
        path.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    (run.directory / "snapshots" / "step_00000006.safetensors").write_bytes(b"to be written anew")
    (run.directory / "snapshots" / ".step_00000008.safetensors.0123abcd").write_bytes(b"half")
    resumed = train(tmp_path)
    assert "from step 3 to 11" in resumed.out
    assert "snapshots: 4 more" in resumed.out
    assert files(resumed) == files(whole)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_snapshots_of_one(tmp_path, strategy):
    options = ("model.dropout=0", "optimizer.eps=1e-2")  # dropout in a network is each process's own
    one = train(tmp_path, *options, name="one")
    given = (
        *POWER,
        *options,
        f"trainer.strategy={strategy}",
        "trainer.devices=2",
        f"output_dir={tmp_path}",
        "name=two",
    )
    start(ROOT / "train.py", *{each.partition("=")[0]: each for each in given}.values())
    assert sorted(files(one)) == sorted(path.name for path in (tmp_path / "two" / "snapshots").iterdir())
    for name in files(one):
        first, second = (read_weights(tmp_path / run / "snapshots" / name) for run in ("one", "two"))
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert (second[key] - value).norm() <= 1e-5 * value.norm(), key
    again = [langevin.load(tmp_path / run, ema_width=0.08).model.network.state_dict() for run in ("one", "two")]
    for key, value in again[0].items():
        assert (again[1][key] - value).norm() <= 1e-4 * value.norm(), key


def test_the_width_is_chosen_after_training(whole, tmp_path):
    own, chosen = langevin.load(whole.directory), langevin.load(whole.directory, ema_width=0.08)
    assert own.config["ema"]["width"] is None
    for run, width in ((own, None), (chosen, 0.08)):
        protocol = run.sample(2, sampler="ddim", steps=2).record["samples"]["ema"]
        assert (protocol["widths"], protocol["width"]) == ([0.05, 0.1], width)
    asked = f"checkpoint={whole.directory}", "num_samples=2", "sampler.steps=2", "ema_width=0.08"
    result = call("sample", *asked, f"out={tmp_path / 'samples'}")
    assert result.status == 0, result.err
    with np.load(tmp_path / "samples" / "samples.npz") as made:
        assert json.loads(str(made["record"]))["samples"]["ema"]["width"] == 0.08
        expected = chosen.sample(2, steps=2).samples
        np.testing.assert_array_equal(made["arr_0"], expected)
    assert (expected != own.sample(2, steps=2).samples).any()
    result = call("convert", f"export={whole.directory}", "ema_width=0.08", f"out={tmp_path / 'small.ckpt'}")
    assert result.status == 0, result.err
    small = langevin.load(tmp_path / "small.ckpt")
    assert small.config["ema"]["width"] == 0.08
    for ours, theirs in zip(small.model.parameters(), chosen.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.slow
def test_a_likelihood_says_of_which_width_it_is(whole, tmp_path):
    asked = f"checkpoint={whole.directory}", "ema_width=0.08", "likelihoods=[discrete_vlb]", "num_images=1"
    result = call("evaluate", *asked, f"out={tmp_path}")
    assert result.status == 0, result.err
    assert json.loads((tmp_path / "likelihood.json").read_text())["ema"]["width"] == 0.08


def test_refuses_what_no_run_has(whole, tmp_path):
    with pytest.raises(UserError, match=r"^ema_width is 0\.001; allowed: about 0\.\d+ to 0\.\d+"):
        langevin.load(whole.directory, ema_width=0.001)
    result = call("sample", f"checkpoint={whole.directory}", "ema_width=0.001", f"out={tmp_path / 'none'}")
    assert result.status == 1
    assert "ema_width is 0.001; allowed" in result.err
    (tmp_path / "moved.ckpt").write_bytes(whole.last.read_bytes())
    with pytest.raises(UserError, match="of the 5 snapshots before step 11 there is no "):
        langevin.load(tmp_path / "moved.ckpt", ema_width=0.08)
    plain = [option for option in POWER if not option.startswith("ema")]
    result = call("train", *plain, "trainer.max_steps=1", f"output_dir={tmp_path}", "name=plain")
    assert result.status == 0, result.err
    with pytest.raises(UserError, match="the run was not trained with ema=power"):
        langevin.load(tmp_path / "plain", ema_width=0.08)
    for command, others, text in (
        ("evaluate", ("samples=x", "reference=y", "metrics=[fid]"), "ema_width: goes with checkpoint="),
        ("sample", ("cascade=[a,b]",), "ema_width: is given beside cascade"),
        ("convert", ("import=x", "out=y"), "ema_width: goes with export="),
    ):
        result = call(command, *others, "ema_width=0.08")
        assert result.status == 1
        assert text in result.err, result.err
