"""Runs that start from the weights of another: trained, resumed, moved; and what is refused."""

import json
import shutil

import pytest
import torch
from helpers.commands import CLASSIFIER, ROOT, call
from training_helpers import TINY, Run, column, differing, start, train, trained

from langevin.checkpoint import read_checkpoint

PLAIN = ("callbacks=[checkpoint]", "optimizer.lr=1e-2", "lr_schedule.steps=0", "ema.max_decay=0.5")
FINE = ("callbacks=[checkpoint]", "optimizer.lr=1e-3", "seed=1")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return train(tmp_path_factory.mktemp("base"), *PLAIN, name="base")


@pytest.fixture(scope="module")
def fine(tmp_path_factory, base):
    return train(tmp_path_factory.mktemp("fine"), *FINE, f"init.checkpoint={base.directory}", name="fine")


def weights(run, prefix):
    state = read_checkpoint(run.last)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def distance(first, second):
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_it_starts_from_the_ema_weights_with_a_fresh_optimizer(tmp_path, base):
    """A single step of next to nothing: the weights, and their EMA copy, are where they started."""
    options = (*FINE, "optimizer.lr=1e-12", "trainer.max_steps=1")
    run = train(tmp_path, *options, f"init.checkpoint={base.directory}")
    assert f"init.checkpoint={base.directory} (step 6): " in run.out
    assert " tensors taken, 0 new, 0 unused\n" in run.out
    averaged, raw = weights(base, "ema.network."), weights(base, "model.network.")
    assert distance(averaged, raw) > 1e-4
    for prefix in ("model.network.", "ema.network."):
        assert distance(weights(run, prefix), averaged) < 1e-7
    steps = {float(state["step"]) for state in read_checkpoint(run.last)["optimizer_states"][0]["state"].values()}
    assert steps == {1}


def test_a_model_becomes_one_that_inpaints(tmp_path, base):
    """Its first losses are those of the model that it was, at the same times and noise; no step has moved it yet."""
    options = (*FINE, "optimizer.lr=1e-12", "lr_schedule.steps=0", "model.dropout=0", "trainer.max_steps=2")
    start = f"init.checkpoint={base.directory}"
    plain = train(tmp_path, *options, start, name="plain")
    run = train(tmp_path, *options, start, "conditions=[class_label,inpaint]", name="inpaint")
    assert "(of first.weight the new input channels start at zero), 0 new, 0 unused" in run.out
    first, second = (column(each.rows, "train/loss") for each in (plain, run))
    assert second == pytest.approx(first, rel=1e-4)


def test_it_resumes_to_the_bit_when_what_it_started_from_is_gone(tmp_path, base, fine):
    gone = shutil.copytree(base.directory, tmp_path / "gone")
    options = (*FINE, f"init.checkpoint={gone}")
    train(tmp_path, *options, "trainer.max_steps=2", name="fine")
    shutil.rmtree(gone)
    resumed = train(tmp_path, *options, name="fine")
    assert "from step 2 to 6" in resumed.out
    assert "init.checkpoint" not in resumed.out
    assert differing(trained(resumed), trained(fine)) == []
    assert resumed.rows == fine.rows
    refused = train(tmp_path, *options, name="new", status=1)
    assert f"init.checkpoint: is {gone}; checkpoint={gone} does not exist" in refused.err


@pytest.mark.slow
def test_another_start_is_another_run(tmp_path, base, fine):
    run = shutil.copytree(fine.directory, tmp_path / "fine")
    longer = (*FINE, "trainer.max_steps=8")
    other = train(tmp_path, *PLAIN, "trainer.max_steps=1", name="other")
    for given in (f"init.checkpoint={other.directory}", "init.checkpoint=null"):
        refused = train(tmp_path, *longer, given, name=run.name, status=1)
        assert "name=fine: that run exists with another config; choose another name=" in refused.err
        assert "init.weights: " in refused.err
    moved = shutil.copytree(base.directory, tmp_path / "moved")
    assert "from step 6 to 8" in train(tmp_path, *longer, f"init.checkpoint={moved}", name=run.name).out


@pytest.mark.slow
def test_without_a_name_the_folder_follows_from_the_weights(tmp_path, base):
    place, output = shutil.copytree(base.directory, tmp_path / "base"), tmp_path / "runs"

    def fine_tune(steps):
        arguments = (*TINY, *FINE, f"init.checkpoint={place}", f"trainer.max_steps={steps}", f"output_dir={output}")
        result = call("train", *{argument.partition("=")[0]: argument for argument in arguments}.values())
        assert result.status == 0, result.err
        return {path.name for path in output.iterdir()}

    first = fine_tune(1)
    away = place.rename(tmp_path / "away")
    assert fine_tune(2) == first, "it resumes, though what it was started from is gone"
    away.rename(place)
    train(tmp_path, *PLAIN, "trainer.max_steps=7", name="base")
    assert fine_tune(1) > first


@pytest.mark.slow
def test_what_was_imported_keeps_its_origin(tmp_path, base):
    checkpoint = read_checkpoint(base.last)
    checkpoint["langevin"]["origin"] = {"license": "openrail", "license_text": "You may."}
    torch.save(checkpoint, tmp_path / "base.ckpt")
    options = (*FINE, f"init.checkpoint={tmp_path / 'base.ckpt'}")
    train(tmp_path, *options, "trainer.max_steps=1")
    (tmp_path / "base.ckpt").unlink()
    run = train(tmp_path, *options, "trainer.max_steps=2")
    for found in (
        json.loads((run.directory / "origin.json").read_text()),
        read_checkpoint(run.last)["langevin"]["origin"],
    ):
        assert found == {"license": "openrail", "license_text": "You may."}


@pytest.mark.slow
@pytest.mark.parametrize(
    "task",
    [CLASSIFIER, ("task=autoencoder", "data=digits", "autoencoder.channels=8", "autoencoder.norm_groups=4")],
    ids=["classifier", "autoencoder"],
)
def test_other_tasks_start_from_their_own(tmp_path, base, task):
    options = (*task, "callbacks=[checkpoint]", "trainer.accelerator=cpu", f"output_dir={tmp_path}")

    def run(*overrides):
        given = {each.partition("=")[0]: each for each in (*options, "trainer.max_steps=1", *overrides)}
        return call("train", *given.values())

    assert run("name=first").status == 0
    second = run("name=second", "optimizer.lr=1e-12", f"init.checkpoint={tmp_path / 'first'}")
    assert " tensors taken, 0 new, 0 unused\n" in second.out, second.err
    first, second = (Run(0, "", "", tmp_path / name) for name in ("first", "second"))
    assert distance(weights(second, "model.network."), weights(first, "ema.network.")) < 1e-7
    refused = run("name=third", f"init.checkpoint={base.directory}")
    kind = task[0].rpartition("=")[2]
    assert f"allowed: a{'n' * (kind[0] == 'a')} {kind}'s run; this is a denoiser's" in refused.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("init.checkpoint=nowhere",), "init.checkpoint: is nowhere; checkpoint=nowhere does not exist"),
        (("init.checkpoint={damaged}",), "it is damaged or no checkpoint at all"),
        (("init.checkpoint={base}", "init.weights=abc"), "init.weights: is abc, but init.checkpoint="),
        (("init.weights=abc",), "init.weights: is set, which resumes a run; a new one needs init.checkpoint"),
        (
            ("init.checkpoint={base}", "model.channels=64"),
            "allowed: a network of which at least half of the weights fit model, and here 0% do: size mismatch: "
            "time.linear1.weight is (256, 64) by the config, (128, 32) as stored; ",
        ),
        (
            ("init.checkpoint={base}", "data=toy", "model=mlp"),
            "a model of 2 channels, and this is of samples (1, 8, 8)",
        ),
        (("init.checkpoint=[{base}]",), "init.checkpoint: is ['"),
        (("init.checkpiont={base}",), "init.checkpiont: no such option (did you mean init.checkpoint?)"),
    ],
)
def test_what_is_refused_before_training(tmp_path, base, options, message):
    (tmp_path / "damaged").write_bytes(b"no checkpoint")
    given = [option.format(base=base.directory, damaged=tmp_path / "damaged") for option in options]
    if "data=toy" in given:
        arguments = (*given, f"output_dir={tmp_path}", "name=refused")
        run = Run(*call("train", *arguments), tmp_path / "refused")
    else:
        run = train(tmp_path, *FINE, *given, name="refused", status=1)
    assert message in run.err, run.err
    assert "Traceback" not in run.err
    assert not run.directory.exists()


@pytest.mark.slow
def test_several_processes_start_alike(tmp_path, base):
    """Sharded too: the weights are there before they are cut."""
    runs = []
    for strategy, processes in (("auto", 1), ("ddp", 2), ("fsdp", 2)):
        options = (*TINY, *FINE, f"init.checkpoint={base.directory}", "model.dropout=0")
        options = (*options, f"trainer.strategy={strategy}", f"trainer.devices={processes}")
        given = {
            option.partition("=")[0]: option for option in (*options, f"output_dir={tmp_path}", f"name={strategy}")
        }
        runs.append(Run(0, *start(ROOT / "train.py", *given.values()), tmp_path / strategy))
    first, *others = (column(run.rows, "train/loss") for run in runs)
    for other in others:
        assert other == pytest.approx(first, rel=1e-4)
