"""`sample.py edit.images=...`: images are given noise and sampled from there."""

import json

import numpy as np
import pytest
from helpers.commands import call


@pytest.fixture(scope="module")
def images(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("images")
    result = call("sample", f"checkpoint={plain}", f"out={out}", "num_samples=3", "seed=5", "accelerator=cpu")
    assert result.status == 0, result.err
    return out / "samples.npz"


def edited(plain, out, *overrides):
    options = (
        f"checkpoint={plain}",
        f"out={out}",
        "sampler=ddim",
        "sampler.steps=4",
        "batch_size=2",
        "accelerator=cpu",
    )
    result = call("sample", *options, *overrides)
    assert result.status == 0, result.err
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"].astype(int), json.loads(str(arrays["record"])), result.out


def test_the_strength_decides_what_remains(plain, images, tmp_path):
    with np.load(images) as arrays:
        original = arrays["arr_0"].astype(int)
    near, record, out = edited(plain, tmp_path / "near", f"edit.images={images}", "edit.strength=0.05")
    assert len(near) == 3, "as many as there are images"
    assert record["edited"]["strength"] == 0.05
    assert "of 255 levels off on average" in out
    assert not (tmp_path / "near" / "noise.npz").exists()
    assert np.abs(near - original).mean() < 12
    anew, _, _ = edited(plain, tmp_path / "anew", f"edit.images={images}", "edit.strength=1", "num_samples=3")
    plainly, _, _ = edited(plain, tmp_path / "plainly", "num_samples=3")
    assert np.array_equal(anew, plainly), "of a strength of 1 nothing remains"
    assert np.abs(anew - original).mean() > np.abs(near - original).mean()


@pytest.mark.slow
def test_another_strength_is_another_folder_of_samples(plain, images, tmp_path):
    edited(plain, tmp_path, f"edit.images={images}", "edit.strength=0.3")
    options = (f"checkpoint={plain}", f"out={tmp_path}", "sampler=ddim", "sampler.steps=4", "batch_size=2")
    again = call("sample", *options, f"edit.images={images}", "edit.strength=0.3", "accelerator=cpu")
    assert "is done" in again.out
    other = call("sample", *options, f"edit.images={images}", "edit.strength=0.6", "accelerator=cpu")
    assert other.status == 1
    assert "edited.strength: 0.3 there, 0.6 now" in other.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["edit.strength=1.5"], "edit.strength: is 1.5; allowed: a number, above 0, at most 1"),
        (["edit.strenght=0.5"], "edit.strenght: no such option (did you mean edit.strength?)"),
        (["edit={images}"], "edit: is '{images}'; allowed: its options edit.images, edit.strength"),
        (
            ["edit.images={images}", "invert.images={images}"],
            "invert.images: is given beside edit.images; allowed: one of them",
        ),
        (["edit.images=nowhere"], "edit.images=nowhere"),
        (
            ["edit.images={images}", "edit.strength=0.01", "sampler.steps=50"],
            "sampler.steps is 50; allowed: at least 1",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistake_is_reported(plain, images, tmp_path, overrides, words):
    given = [override.format(images=images) for override in overrides]
    result = call("sample", f"checkpoint={plain}", f"out={tmp_path}", "sampler=ddim", *given, "accelerator=cpu")
    assert result.status == 1
    assert words.format(images=images) in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "samples.npz").exists()
