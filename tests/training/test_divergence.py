"""Batches whose loss or gradient is not finite, or explodes."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from training_helpers import LOSS_AWARE, QUIET, SPY, TINY, column, differing, numbers, start, train, trained

from langevin.checkpoint import read_checkpoint
from langevin.errors import UserError
from langevin.training.callbacks.divergence import Divergence
from langevin.training.module import DiffusionModule

GUARDED = ("callbacks=[checkpoint,progress,divergence]", "callbacks.progress.every_n_steps=1")
SAVING = "callbacks.checkpoint.every_minutes=0.00001"  # at every step
BEYOND = 1e3


def nan_loss(module, loss):
    return loss * math.nan


def infinite_loss(module, loss):
    """The gradient is as ever."""
    return loss + math.inf


def nan_gradient(module, loss):
    """The loss is as ever: sqrt(0), whose slope is 0 times infinity."""
    weights = module.model.network.first.weight.sum()
    return loss + (weights - weights.detach()).abs().sqrt()


def explosion(module, loss):
    return loss * BEYOND


@pytest.fixture
def spoil(monkeypatch):
    """Makes some batches bad; what comes back is a list of the (module, batch_idx, images, loss) before that."""
    training_step, seen = DiffusionModule.training_step, []

    def spoil(how, *batches):
        def step(self, batch, batch_idx):
            loss = training_step(self, batch, batch_idx)
            seen.append((self, batch_idx, batch["x"], float(loss.detach())))
            return how(self, loss) if batch_idx in batches else loss

        monkeypatch.setattr(DiffusionModule, "training_step", step)
        return seen

    return spoil


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Runs to which nothing happens, by their steps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return {steps: train(folder, *QUIET, f"trainer.max_steps={steps}", name=f"run{steps}") for steps in (3, 6)}


def network_and_moments(run):
    return {name: value for name, value in trained(run).items() if name.startswith(("model.", "optimizer."))}


def record(run, step, rank=0):
    return torch.load(run.directory / "diverged" / f"step_{step:08d}-{rank}.pt", weights_only=True)


def found(run, step):
    return json.loads((run.directory / "diverged" / f"step_{step:08d}.json").read_text())


SPOILT = [nan_loss, *(pytest.param(how, marks=pytest.mark.slow) for how in (infinite_loss, nan_gradient))]


@pytest.mark.parametrize("how", SPOILT)
def test_stop_leaves_the_last_good_step(tmp_path, spoil, undisturbed, monkeypatch, how):
    spoil(how, 3)
    run = train(tmp_path, *GUARDED, SAVING, status=1)
    reason = {
        nan_loss: "the loss is nan",
        infinite_loss: "the loss is inf",
        nan_gradient: "the gradient's norm is nan",
    }[how]
    assert f"error: training diverged at step 4: {reason}. The last checkpoint is of a good step" in run.err
    assert differing(trained(run), trained(undisturbed[3])) == []
    assert found(run, 4)["action"] == "stop"
    assert found(run, 4)["fault"] == reason

    monkeypatch.undo()  # it was the weather
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = train(tmp_path, *GUARDED)
    assert "from step 3 to 6" in again.out
    assert differing(trained(again), trained(undisturbed[6])) == []


def test_a_good_run_is_what_it_is_without(tmp_path, undisturbed):
    run = train(tmp_path, *GUARDED, "callbacks.divergence.action=skip")
    assert differing(trained(run), trained(undisturbed[6])) == []
    assert run.rows == undisturbed[6].rows
    assert not (run.directory / "diverged").exists()


@pytest.mark.parametrize("how", SPOILT)
def test_skip_does_not_make_the_step(tmp_path, spoil, undisturbed, how):
    spoil(how, 3)
    run = train(tmp_path, *GUARDED, "callbacks.divergence.action=skip", "trainer.max_steps=4")
    assert differing(network_and_moments(run), network_and_moments(undisturbed[3])) == []
    # The average follows the weights, by the decay of the fourth step: min(0.9, (1 + 4) / (10 + 4)).
    before, now = trained(undisturbed[3]), trained(run)
    for name, average in now.items():
        if name.startswith("ema."):
            weights = before[name.replace("ema.", "model.", 1)]
            torch.testing.assert_close(average, torch.lerp(before[name], weights, 1 - 5 / 14))
    assert "skipped; the batch is in" in run.err + run.out

    whole = train(tmp_path, *GUARDED, "callbacks.divergence.action=skip", name="whole")
    assert all(value.isfinite().all() for value in trained(whole).values())
    assert not differing(trained(whole), trained(train(tmp_path, *GUARDED, "callbacks.divergence.action=skip")))
    assert [row["step"] for row in whole.rows] == ["1", "2", "3", "4", "5", "6"]
    assert [math.isnan(norm) for norm in column(whole.rows, "train/grad_norm").values()][3] == (
        how is not infinite_loss
    )


@pytest.mark.slow
def test_skip_has_its_patience(tmp_path, spoil, undisturbed):
    """Two in a row, a good one, and three in a row; resumed in between."""
    spoil(nan_loss, 1, 2, 4, 5, 6)
    options = (*GUARDED, SAVING, "callbacks.divergence.action=skip", "callbacks.divergence.patience=2")
    train(tmp_path, *options, "trainer.max_steps=6")
    run = train(tmp_path, *options, "trainer.max_steps=9", status=1)
    assert "diverged at step 7: the loss is nan, after action=skip 2 times (patience)." in run.err
    assert read_checkpoint(run.last)["global_step"] == 6
    assert [found(run, step)["action"] for step in (2, 3, 5, 6, 7)] == ["skip"] * 4 + ["stop"]


def test_an_explosion_is_measured_by_the_median(tmp_path, spoil, undisturbed):
    """Not before there are as many norms as the median is of; they outlive the process."""
    spoil(explosion, 1, 4)
    options = (*GUARDED, "callbacks.divergence.action=skip", "callbacks.divergence.factor=100")
    options = (*options, "callbacks.divergence.window=3", "trainer.gradient_clip_val=null")
    train(tmp_path, *options, "trainer.max_steps=4")
    run = train(tmp_path, *options, "trainer.max_steps=6")
    norms = column(run.rows, "train/grad_norm")
    usual = sorted(norms[step] for step in (2, 3, 4))[1]
    assert norms[2] > 100 * norms[1]
    assert norms[5] > 100 * usual
    assert sorted(os.listdir(run.directory / "diverged")) == ["step_00000005-0.pt", "step_00000005.json"]
    assert found(run, 5)["grad_norm"] == pytest.approx(norms[5], rel=1e-6)
    assert f"above factor=100 times the usual {usual:.4g}" in found(run, 5)["fault"]


@pytest.mark.parametrize("extra", [(), pytest.param(LOSS_AWARE, marks=pytest.mark.slow)], ids=["uniform", "loss_aware"])
def test_roll_back_goes_to_the_last_checkpoint_and_past_the_batch(tmp_path, spoil, extra):
    seen = spoil(nan_loss, 5)
    options = (*GUARDED, *extra, "callbacks.divergence.action=roll_back")
    saved = shutil.copyfile(train(tmp_path, *options, "trainer.max_steps=3").last, tmp_path / "saved.ckpt")
    run = train(tmp_path, *options, "trainer.max_steps=6")
    assert "back to step 3" in run.err + run.out
    assert differing(numbers(saved), trained(run)) == ["global_step"]
    before, now = read_checkpoint(saved), read_checkpoint(run.last)
    assert now["lr_schedulers"][0]["last_epoch"] == before["lr_schedulers"][0]["last_epoch"] == 3
    for name, learnt in before["time_sampler"].items():
        assert torch.equal(now["time_sampler"][name], learnt)

    # On from there at once, and by another process: the same, on the batches that follow.
    resumed = train(tmp_path, *options, "trainer.max_steps=9")
    del seen[:]
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    shutil.copyfile(saved, tmp_path / "whole" / "checkpoints" / "last.ckpt")
    whole = train(tmp_path, *options, "trainer.max_steps=9", name="whole")
    assert [batch for _, batch, *_ in seen] == [3, 4, 5, 6, 7, 8]
    assert differing(trained(whole), trained(resumed)) == []
    # The learning rate warms up in 4 steps from 0: after step 3, the seventh batch makes the fourth.
    assert column(whole.rows, "train/learning_rate") == pytest.approx(
        {1: 2.5e-4, 2: 5e-4, 3: 7.5e-4, 4: 1e-3, 5: 1e-3, 6: 1e-3, 7: 1e-3, 8: 1e-3, 9: 1e-3}
    )


@pytest.mark.slow
def test_by_steps_roll_back_does_not_depend_on_the_clock(tmp_path, spoil):
    spoil(nan_loss, 5, 7)
    by_steps = ("callbacks.divergence.action=roll_back", "callbacks.checkpoint.every_n_steps=2", "trainer.max_steps=10")
    runs = [train(tmp_path, *GUARDED, *by_steps, name=name) for name in ("first", "second")]
    for run in runs:
        said = run.err + run.out
        assert "step 6: the loss is nan: back to step 4" in said
        assert "step 8: the loss is nan: back to step 6" in said
    assert differing(trained(runs[0]), trained(runs[1])) == []


@pytest.mark.slow
def test_roll_back_has_its_patience(tmp_path, spoil):
    """With a good step in between, and nothing saved."""
    spoil(nan_loss, 3, 5, 7)
    options = (*GUARDED, "callbacks.divergence.action=roll_back", "callbacks.divergence.patience=2")
    train(tmp_path, *options, "trainer.max_steps=3")
    run = train(tmp_path, *options, "trainer.max_steps=9", status=1)
    assert "diverged at step 8: the loss is nan, after action=roll_back 2 times (patience)." in run.err
    assert read_checkpoint(run.last)["global_step"] == 3


def test_before_anything_is_saved_roll_back_skips(tmp_path, spoil):
    spoil(nan_loss, 2)
    runs = [train(tmp_path, *GUARDED, f"callbacks.divergence.action={a}", name=a) for a in ("skip", "roll_back")]
    assert differing(trained(runs[0]), trained(runs[1])) == []
    assert "step 3: the loss is nan: skipped;" in runs[1].err + runs[1].out


def test_roll_back_needs_checkpoints(tmp_path):
    run = train(tmp_path, "callbacks=[divergence]", "callbacks.divergence.action=roll_back", status=1)
    assert "callbacks.divergence.action=roll_back: nothing is saved in this run" in run.err


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_what_is_kept_reproduces_the_loss(tmp_path, spoil, micro_batches):
    """By the objective itself, on the very weights, which the run has left alone."""
    first = 3 * micro_batches
    seen = spoil(infinite_loss, first + micro_batches - 1)
    options = (*GUARDED, f"trainer.accumulate_grad_batches={micro_batches}", "model.dropout=0.5")
    run = train(tmp_path, *options, status=1)
    kept = record(run, 4)
    assert kept["step"] == 4
    assert kept["loss"] == math.inf
    assert [len(part["images"]) for part in kept["parts"]] == [8 // micro_batches] * micro_batches
    met = [(x, loss) for _, batch, x, loss in seen if batch >= first]
    module = seen[-1][0]
    for part, (x, loss) in zip(kept["parts"], met, strict=True):
        assert torch.equal(part["images"], x)
        torch.manual_seed(part["seed"])
        noised = module.model.process.mix(part["images"], part["noise"], part["times"])
        terms = module.objective.terms(module.model, part["images"], noised, {"label": part["label"]}, part["times"])
        assert float(terms["loss"].mean().detach()) == loss


def test_only_so_many_batches_are_kept(tmp_path, spoil, monkeypatch):
    monkeypatch.setattr(Divergence, "RECORDS", 2)
    spoil(nan_loss, 1, 2, 3)
    run = train(tmp_path, *GUARDED, "callbacks.divergence.action=skip")
    assert len(list((run.directory / "diverged").glob("*.pt"))) == 2
    assert len(list((run.directory / "diverged").glob("*.json"))) == 3


def test_a_full_disk_is_no_reason_to_stop(tmp_path, spoil):
    spoil(nan_loss, 2)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diverged").write_text("no folder")
    with pytest.warns(UserWarning, match="the bad batch of step 3 could not be kept"):
        run = train(tmp_path, *GUARDED, "callbacks.divergence.action=skip")
    assert read_checkpoint(run.last)["global_step"] == 6


@pytest.mark.parametrize(
    ("loss", "norm", "fault"),
    [(3.0, math.inf, None), (math.nan, math.nan, "the loss is nan"), (3.0, 50.0, "is 50, above factor=2 times")],
)
def test_the_scaler_sees_to_its_own_overflows(tmp_path, loss, norm, fault):
    """Of 16-mixed, which needs a GPU: here by hand. The loss comes scaled."""
    trainer = SimpleNamespace(
        precision_plugin=SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: 2.0**16)),
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
        global_step=0,
        global_rank=0,
        is_global_zero=True,
    )
    callback = Divergence(tmp_path, factor=2, window=1)
    callback.load_state_dict({"norms": [1.0], "count": 0, "origin": 0})
    callback._parts.append({})
    callback.on_before_backward(trainer, SimpleNamespace(drawn={}), torch.tensor(loss * 2.0**16))
    if fault is None:
        callback.on_gradient(trainer, None, torch.tensor(norm))
        assert callback.state_dict()["norms"] == [1.0]
    else:
        with pytest.raises(UserError, match=fault):
            callback.on_gradient(trainer, None, torch.tensor(norm))
        assert str(json.loads((tmp_path / "diverged" / "step_00000001.json").read_text())["loss"]) == str(loss)


# The second process alone has a bad twelfth batch; it is saved after ten steps.
BAD_RANK = """
from langevin.training.module import DiffusionModule
good_step = DiffusionModule.training_step

def bad_step(self, batch, batch_idx):
    loss = good_step(self, batch, batch_idx)
    return loss * float("nan") if self.global_rank == 1 and batch_idx == 11 else loss

DiffusionModule.training_step = bad_step
"""


@pytest.mark.slow
@pytest.mark.parametrize(("action", "strategy"), [("skip", "ddp"), ("roll_back", "ddp"), ("roll_back", "fsdp")])
def test_two_processes_decide_alike(tmp_path, action, strategy):
    script = tmp_path / "bad.py"
    script.write_text(BAD_RANK + SPY)
    options = {
        option.partition("=")[0]: option
        for option in (
            *TINY,
            *GUARDED,
            SAVING,
            "trainer=ddp_cpu",
            f"trainer.strategy={strategy}",
            "trainer.max_steps=14",
            f"callbacks.divergence.action={action}",
        )
    }
    out, err = start(script, *options.values(), f"output_dir={tmp_path}", "name=run")
    done = "skipped" if action == "skip" else "back to step 10"
    assert (out + err).count(f"step 12: the loss is nan: {done}") == 1
    ranks = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert differing(ranks[0]["weights"], ranks[1]["weights"]) == []
    assert all(value.isfinite().all() for value in ranks[0]["weights"].values())
    kept = sorted(path.name for path in (tmp_path / "run" / "diverged").iterdir())
    assert kept == ["step_00000012-0.pt", "step_00000012-1.pt", "step_00000012.json"]


@pytest.mark.slow
def test_two_processes_stop(tmp_path):
    script = tmp_path / "bad.py"
    script.write_text(BAD_RANK + SPY)
    options = {
        option.partition("=")[0]: option
        for option in (*TINY, *GUARDED, SAVING, "trainer=ddp_cpu", "trainer.max_steps=14")
    }
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, script, *options.values(), f"output_dir={tmp_path}", "name=run"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "training diverged at step 12: the loss is nan" in done.stderr
    assert time.monotonic() - began < 100
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 10
