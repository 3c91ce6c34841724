"""`sample.py hint.images=...` and `hint.hints=...`: samples that follow hints."""

import json

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.digits import digits
from PIL import Image

import langevin
from langevin.conditions.hint import Hint
from langevin.images import from_uint8


@pytest.fixture(scope="module")
def model(train):
    """The folder of a run of hints and classes."""
    return train("hint", "conditions=[class_label,hint]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images and their hints: in one file, and as files in colour."""
    folder = tmp_path_factory.mktemp("images")
    stored, labels = digits()
    np.savez(folder / "images.npz", arr_0=stored[:5], arr_1=labels[:5])
    x = from_uint8(torch.from_numpy(stored[:5]).movedim(-1, 1))
    edges = Hint(kind="edges", threshold=None, dropout=0.0, image_size=8).hint(x)
    hints = (255 * edges).round().byte().movedim(1, -1).numpy()
    np.savez(folder / "hints.npz", arr_0=hints, arr_1=labels[:5])
    np.savez(folder / "others.npz", arr_0=hints[::-1], arr_1=labels[:5])
    np.savez(folder / "large.npz", arr_0=np.zeros((2, 16, 16, 1), np.uint8))
    (folder / "drawn").mkdir()
    for index, hint in enumerate(hints):
        Image.fromarray(hint[..., 0]).convert("RGB").save(folder / "drawn" / f"{index}.png")
    return folder


def sampled(model, out, *overrides):
    return call("sample", f"checkpoint={model}", "sampler.steps=3", *overrides, f"out={out}", "accelerator=cpu")


def read(out):
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"], arrays["arr_1"], json.loads(str(arrays["record"]))


def test_hints_are_computed_of_images_as_they_are_given(model, place, tmp_path):
    result = sampled(model, tmp_path / "images", f"hint.images={place / 'images.npz'}")
    assert result.status == 0, result.err
    made, labels, record = read(tmp_path / "images")
    with np.load(place / "images.npz") as arrays:
        assert made.shape == arrays["arr_0"].shape, "as many as there are images"
        assert np.array_equal(labels, arrays["arr_1"]), "their own labels"
    assert set(record["samples"]["hint"]) == {"images", "scale"}

    assert sampled(model, tmp_path / "hints", f"hint.hints={place / 'hints.npz'}", "batch_size=2").status == 0
    by_hints, _, record = read(tmp_path / "hints")
    assert np.array_equal(by_hints, made), "the same hints"
    assert set(record["samples"]["hint"]) == {"hints", "scale"}

    given = (f"hint.hints={place / 'drawn'}", f"labels=[{','.join(map(str, labels))}]")
    assert sampled(model, tmp_path / "drawn", *given).status == 0
    assert np.abs(read(tmp_path / "drawn")[0].astype(int) - made).max() <= 1, "in colour"

    overrides = [f"hint.images={place / 'images.npz'}"]
    by_api = langevin.load(model).sample(5, steps=3, device="cpu", overrides=overrides).samples
    assert np.array_equal(by_api, made)


def test_other_hints_are_other_samples(model, place, tmp_path):
    given = (f"hint.hints={place / 'hints.npz'}", f"hint.hints={place / 'others.npz'}")
    assert sampled(model, tmp_path / "one", given[0]).status == 0
    assert "is done" in sampled(model, tmp_path / "one", given[0]).out
    refused = sampled(model, tmp_path / "one", given[1])
    assert refused.status == 1
    assert "samples.hint.hints: " in refused.err
    assert sampled(model, tmp_path / "two", given[1]).status == 0
    assert not np.array_equal(read(tmp_path / "one")[0], read(tmp_path / "two")[0])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "hint.images: must be given: images (.npz, folder or zip) whose edges the samples are to have"),
        (("hint.images={place}/large.npz",), "(16, 16, 1); allowed: (8, 8, 1)"),
        (("hint.hints={place}/large.npz",), "(16, 16, 1); allowed: (8, 8, 1) or (8, 8, 3)"),
        (("hint.hints=nowhere",), "hint.hints=nowhere"),
        (
            ("hint.images={place}/images.npz", "hint.scale=0.5"),
            "hint.scale: is 0.5; allowed: 1, since the model was not trained with model.control=true",
        ),
        (
            ("hint.images={place}/images.npz", "hint.hints={place}/hints.npz"),
            "hint.hints: is given beside hint.images; allowed: one of them",
        ),
    ],
)
def test_a_mistake_is_reported(model, place, tmp_path, overrides, words):
    result = sampled(model, tmp_path, *(override.format(place=place) for override in overrides))
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "samples.npz").exists()


def test_a_model_without_the_condition_takes_no_hints(labelled, place, tmp_path):
    result = sampled(labelled, tmp_path, f"hint.hints={place / 'hints.npz'}")
    assert result.status == 1
    assert "hint.hints: is " in result.err
    assert "the model is not trained with conditions=[hint]" in result.err
