"""Runs with aligned features: resumed to the bit, sampled without the classifier, refused in one message."""

import shutil

import pytest
import torch
from helpers.commands import call, composed
from helpers.dinov2 import offline_hub, save_dinov2
from helpers.saved import save_untrained
from training_helpers import QUIET, TINY, VALIDATED, column, differing, read_csv, train, train_on_two, trained

from langevin.assembly.saved import load_model
from langevin.spec import DataSpec

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SPEC = DataSpec.of_images(channels=1, image_size=8, num_classes=10)
PREFIX = "objective.auxiliaries.alignment."


def classifier_at(path, *overrides):
    small = ("task=classifier", "classifier.channels=32", "classifier.channel_multipliers=[1]", *overrides)
    return save_untrained(path, composed("train", *small)[0], SPEC)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return classifier_at(tmp_path_factory.mktemp("classifier") / "last.ckpt")


def options(classifier, *more):
    own = ("auxiliaries=[alignment]", f"auxiliaries.alignment.run={classifier}", "auxiliaries.alignment.width=16")
    return (*QUIET, *VALIDATED, *own, "trainer.max_steps=4", *more)


@pytest.fixture(scope="module")
def run(tmp_path_factory, classifier):
    return train(tmp_path_factory.mktemp("aligned"), *options(classifier))


def test_it_is_logged_and_the_validated_loss_is_that_of_the_objective(run):
    losses, aligned, mse = (column(run.rows, f"train/{name}") for name in ("loss", "alignment", "mse"))
    for step in range(1, 5):  # eps and its unit weighting: the objective's own loss is the mse
        assert losses[step] == pytest.approx(mse[step] + 0.5 * aligned[step], rel=1e-5)
    assert column(run.rows, "val/loss") == column(run.rows, "val/mse")
    assert all(-1 <= value <= 1 and value != 0 for value in column(run.rows, "val/alignment").values())
    assert len(column(run.rows, "train/grad_norm/auxiliaries")) == 4


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_resumed_run_is_the_undisturbed_run(tmp_path, classifier, micro_batches):
    accumulate = f"trainer.accumulate_grad_batches={micro_batches}"
    whole = train(tmp_path, *options(classifier, accumulate), name="whole")
    half = train(tmp_path, *options(classifier, accumulate, "trainer.max_steps=2"))
    assert f"{PREFIX}projector.0.weight" in differing(trained(half), trained(whole))
    resumed = train(tmp_path, *options(classifier, accumulate))
    assert "from step 2 to 4" in resumed.out
    assert differing(trained(resumed), trained(whole)) == []


def test_two_processes_train_what_one_does(tmp_path, classifier, run):
    """All weights take part in every step; but for dropout inside the network, which every process draws itself."""
    both = train_on_two(tmp_path / "two", *options(classifier, "model.dropout=0"), options=())
    weights = [torch.load(tmp_path / "two" / f"rank_{rank}.pt", weights_only=True)["weights"] for rank in (0, 1)]
    assert differing(*weights) == []
    one = train(tmp_path, *options(classifier, "model.dropout=0"))
    for name in ("train/loss", "train/alignment", "val/alignment"):
        assert column(both.rows, name) == pytest.approx(column(one.rows, name), rel=1e-4)
    moved = trained(run)[f"{PREFIX}projector.4.bias"]
    assert not torch.equal(weights[0][f"{PREFIX}projector.4.bias"], moved)


def test_the_projector_is_saved_and_the_classifier_is_not(run):
    held = {name for name in trained(run) if not name.startswith(("model.network.", "ema.", "optimizer.", "global_"))}
    assert held == {f"{PREFIX}projector.{layer}.{kind}" for layer in (0, 2, 4) for kind in ("weight", "bias")}


def test_what_samples_needs_neither(tmp_path, classifier):
    """Nor does what is exported; its digest stays in the config."""
    moved = tmp_path / "moved.ckpt"
    shutil.copy(classifier, moved)
    run = train(tmp_path, *options(moved))
    moved.unlink()
    model = load_model(run.last)
    assert len(model.cfg.auxiliaries.alignment.weights) == 64
    assert not any("auxiliaries" in name for name, _ in model.denoiser.named_parameters())
    commands = (
        ("sample", f"checkpoint={run.directory}", "num_samples=2", "sampler.steps=2", "accelerator=cpu"),
        ("convert", f"export={run.directory}", f"out={tmp_path / 'out.ckpt'}"),
    )
    for command in commands:
        found = call(*command)
        assert found.status == 0, found.err
    refused = train(tmp_path, *options(moved, "trainer.max_steps=6"), status=1)
    assert refused.err.count("\n") < 5
    assert f"auxiliaries.alignment.run: is {moved}, which does not exist; allowed: " in refused.err
    classifier_at(moved, "classifier.blocks_per_level=2")
    refused = train(tmp_path, *options(moved, "trainer.max_steps=6"), status=1)
    assert "name=run: that run exists with another config" in refused.err
    assert refused.err.count("auxiliaries.alignment.") == 1
    assert f"auxiliaries.alignment.weights: {model.cfg.auxiliaries.alignment.weights} in the run" in refused.err
    # Elsewhere the same weights are the same run.
    elsewhere = tmp_path / "elsewhere.ckpt"
    shutil.copy(classifier, elsewhere)
    assert "from step 4 to 6" in train(tmp_path, *options(elsewhere, "trainer.max_steps=6")).out


def test_the_term_falls(tmp_path, classifier):
    longer = ("trainer.max_steps=60", "optimizer.lr=3e-3", "trainer.val_check_interval=60", "model.dropout=0")
    values = column(train(tmp_path, *options(classifier, *longer)).rows, "train/alignment")
    assert values[60] < -0.5 < values[1]


def test_compiled_blocks_are_aligned(tmp_path, classifier):
    """To rounding; of other networks see the test of their taps."""
    own = ("model=dit_s", "model.patch_size=2", "model.width=32", "model.heads=2", "model.depth=2")
    unet = ("model=unet_small", "model.channels", "model.channel_multipliers", "model.dropout")
    common = [each for each in (*TINY, *options(classifier)) if not each.startswith(unet)]
    rows = []
    for compiled in ("false", "true"):
        last = {each.partition("=")[0]: each for each in (*common, *own, f"compile={compiled}", f"name={compiled}")}
        found = call("train", *last.values(), f"output_dir={tmp_path}")
        assert found.status == 0, found.err
        rows.append(read_csv(tmp_path / compiled / "metrics.csv"))
    for name in ("train/loss", "train/alignment", "val/alignment"):
        plain, compiled = (column(each, name) for each in rows)
        assert len(plain) >= 2
        assert compiled == pytest.approx(plain, rel=1e-3)


def test_a_run_aligned_to_dinov2_resumes_to_the_bit_and_needs_it_for_that_alone(tmp_path):
    own = ("auxiliaries=[dinov2_alignment]", "auxiliaries.dinov2_alignment.width=16", *QUIET, *VALIDATED)
    steps = "trainer.max_steps={}".format
    with offline_hub(tmp_path / "hub") as hub:
        save_dinov2(hub)
        whole = train(tmp_path, *own, steps(4), name="whole")
        train(tmp_path, *own, steps(2))
        resumed = train(tmp_path, *own, steps(4))
        assert "from step 2 to 4" in resumed.out
        assert differing(trained(resumed), trained(whole)) == []
        assert not any("frozen_encoder" in name for name in trained(whole))
        assert all(-1 <= value <= 1 and value != 0 for value in column(whole.rows, "val/dinov2_alignment").values())
        save_dinov2(hub, seed=1)
        refused = train(tmp_path, *own, steps(6), status=1)
        assert refused.err.count("auxiliaries.dinov2_alignment.") == 1
        assert "auxiliaries.dinov2_alignment.weights: " in refused.err
        shutil.rmtree(hub)
        refused = train(tmp_path, *own, steps(6), status=1)
        assert "auxiliaries.dinov2_alignment.model: is dinov2-vit-b-14, which torch hub does not give (" in refused.err
        found = call("sample", f"checkpoint={whole.directory}", "num_samples=2", "sampler.steps=2", "accelerator=cpu")
        assert found.status == 0, found.err
