"""Runs with `conditions.hint.kind=pairs`: hints that come with the data, in all commands."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import TINY, call
from helpers.digits import digits
from PIL import Image

from langevin.checkpoint import read_checkpoint

PAIRS = ("conditions=[hint]", "conditions.hint.kind=pairs")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pairs, training images and others, whose hints are the images turned by a quarter."""
    folder = tmp_path_factory.mktemp("pairs")
    stored = digits()[0][:24, ..., 0]
    for part, images in (("train", stored[:16]), ("held", stored[16:])):
        (folder / part).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / part / f"{index:02}.png")
            (folder / part / f"{index:02}.txt").write_text("a digit")
            Image.fromarray(np.rot90(image)).convert("RGB").save(folder / part / f"{index:02}.control.png")
    np.savez(folder / "hints.npz", arr_0=np.rot90(stored[16:], axes=(1, 2))[..., None])
    return folder


def data_of(place):
    return ("data=captioned", f"data.path={place}/train", f"data.test_path={place}/held", *SIZE)


SIZE = ("data.image_size=8", "data.channels=1")


@pytest.fixture(scope="module")
def model(train, place):
    """The folder of a run of paired hints; it is validated, previewed and measured on held-out ones."""
    measured = ("metrics=[psnr]", "evaluation.num_samples=8", "evaluation.every_n_steps=6", "evaluation.batch_size=4")
    dropped = ("conditions.hint.dropout=0.5", "callbacks.samples.every_n_steps=6", "trainer.val_check_interval=6")
    return train("paired", *data_of(place), *PAIRS, *measured, *dropped)


def sampled(model, out, *overrides):
    return call("sample", f"checkpoint={model}", "sampler.steps=3", *overrides, f"out={out}", "accelerator=cpu")


def read(out):
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"], json.loads(str(arrays["record"]))


def test_samples_follow_given_hints(model, place, tmp_path):
    result = sampled(model, tmp_path / "folder", f"hint.hints={place / 'held'}")
    assert result.status == 0, result.err
    made, record = read(tmp_path / "folder")
    assert made.shape == (8, 8, 8, 1), "as many as there are hints beside images"
    assert set(record["samples"]["hint"]) == {"hints", "scale"}
    assert sampled(model, tmp_path / "npz", f"hint.hints={place / 'hints.npz'}", "batch_size=3").status == 0
    assert np.abs(read(tmp_path / "npz")[0].astype(int) - made).max() <= 1, "in colour there"
    assert sampled(model, tmp_path / "other", f"hint.hints={place / 'train'}", "num_samples=8").status == 0
    assert not np.array_equal(read(tmp_path / "other")[0], made)


def test_training_and_evaluation_take_hints_of_held_out_images(model, place, tmp_path):
    """The samples that are measured are those which are made of the same hints when these are given."""
    given = (f"checkpoint={model}", "metrics=[psnr]", "num_samples=8", "batch_size=8", "sampler.steps=2")
    result = call("evaluate", *given, f"out={tmp_path}", "accelerator=cpu")
    assert result.status == 0, result.err
    found = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["psnr"]
    given = (f"hint.hints={place / 'hints.npz'}", "sampler.steps=2", "batch_size=8")
    assert sampled(model, tmp_path / "made", *given).status == 0
    made, wanted = read(tmp_path / "made")[0].astype(float), digits()[0][16:24]
    assert found == pytest.approx(np.mean(-10 * np.log10(np.mean(((made - wanted) / 255) ** 2, (1, 2, 3)))), abs=1e-3)
    rows = (model / "metrics.csv").read_text()
    assert "psnr" in rows
    assert list((model / "samples").glob("samples*.png"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "hint.hints: must be given: hints (.npz, folder or zip) like those beside the images of the training"),
        (
            ("hint.images={place}/held",),
            "held; the model's hints are not computed of images (conditions.hint.kind=pairs",
        ),
    ],
)
def test_computed_hints_are_refused_in_sampling(model, place, tmp_path, overrides, words):
    result = sampled(model, tmp_path, *(override.format(place=place) for override in overrides))
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data=digits",), "conditions.hint: reads hints that come with the data, and this data has none"),
        (
            ("data=image_folder", "data.path={place}/none", *SIZE),
            "none: conditions.hint.kind=pairs reads a hint beside each image",
        ),
        (
            ("data=image_folder", "data.path={place}/train", *SIZE, "conditions.hint.threshold=0.3"),
            "conditions.hint.threshold: is 0.3; allowed with kind=pairs: null",
        ),
        (
            ("data=image_folder", "data.path={place}/train", *SIZE, "conditions.hint.channels=3"),
            "conditions.hint.channels: is 3; allowed with kind=pairs: 1",
        ),
    ],
)
def test_data_without_hints_is_refused_before_training(place, tmp_path, overrides, words):
    (place / "none").mkdir(exist_ok=True)
    Image.new("L", (8, 8)).save(place / "none" / "0.png")
    given = (override.format(place=place) for override in overrides)
    result = call("train", *TINY, *PAIRS, *given, f"output_dir={tmp_path}", "name=run")
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "run").exists()


def test_unread_hints_are_said(place, tmp_path):
    result = call("train", *TINY, *data_of(place), f"output_dir={tmp_path}", "name=run")
    assert result.status == 0, result.err
    assert (result.out + result.err).count("left out: 24 unread .control files") == 1


@pytest.mark.slow
def test_an_adapter_follows_them(train, place, tmp_path):
    base = train("base_of_pairs", *data_of(place), "model.dropout=0")
    adapter = ("model.control=true", f"init.checkpoint={base}", "model.dropout=0")
    run = train("adapter_of_pairs", *data_of(place), *PAIRS, *adapter)
    before, after = (read_checkpoint(each / "checkpoints" / "last.ckpt")["state_dict"] for each in (base, run))
    name = "model.network.first.weight"
    assert torch.equal(after[name], before[name.replace("model.", "ema.", 1)])
    plain, hints = "num_samples=8", f"hint.hints={place / 'hints.npz'}"
    assert sampled(base, tmp_path / "base", plain).status == 0
    assert sampled(run, tmp_path / "off", hints, "hint.scale=0").status == 0
    assert sampled(run, tmp_path / "on", hints).status == 0
    assert np.array_equal(read(tmp_path / "off")[0], read(tmp_path / "base")[0])
    assert not np.array_equal(read(tmp_path / "on")[0], read(tmp_path / "base")[0])
