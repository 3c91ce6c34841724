"""`sample.py inpaint.images=... inpaint.mask=...`: a part of given images is made anew around the rest."""

import json

import numpy as np
import pytest
from helpers.commands import call
from helpers.digits import digits
from PIL import Image

import langevin


@pytest.fixture(scope="module")
def model(train):
    """The folder of a run of known parts and classes."""
    return train("inpaint", "conditions=[class_label,inpaint]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images and masks."""
    folder = tmp_path_factory.mktemp("images")
    stored, labels = digits()
    np.savez(folder / "images.npz", arr_0=stored[:5], arr_1=labels[:5])
    np.savez(folder / "large.npz", arr_0=np.zeros((2, 16, 16, 1), np.uint8))
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 3:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:6]).save(folder / "low.png")
    Image.fromarray(255 - mask).save(folder / "other.png")
    for name, level in (("white", 255), ("black", 0)):
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(folder / f"{name}.png")
    return folder


def sampled(model, place, out, *overrides, mask="mask.png"):
    given = (f"inpaint.images={place / 'images.npz'}", f"inpaint.mask={place / mask}", "sampler.steps=3")
    return call("sample", f"checkpoint={model}", *given, *overrides, f"out={out}", "accelerator=cpu")


def read(out):
    with np.load(out / "samples.npz") as arrays:
        return arrays["arr_0"], arrays["arr_1"], json.loads(str(arrays["record"]))


def test_the_known_pixels_are_those_of_the_images_and_the_others_are_not(model, place, tmp_path):
    result = sampled(model, place, tmp_path / "one")
    assert result.status == 0, result.err
    made, labels, record = read(tmp_path / "one")
    with np.load(place / "images.npz") as arrays:
        images, own = arrays["arr_0"], arrays["arr_1"]
    unknown = np.asarray(Image.open(place / "mask.png")) > 0
    assert made.shape == images.shape, "as many as there are images"
    assert np.array_equal(made[:, ~unknown], images[:, ~unknown])
    assert (made[:, unknown] != images[:, unknown]).mean() > 0.5
    assert np.array_equal(labels, own), "their own labels"
    assert set(record["samples"]["inpaint"]) == {"images", "mask"}
    assert len(record["samples"]["inpaint"]["mask"]["sha256"]) == 64
    sampled(model, place, tmp_path / "two", "batch_size=2")
    assert np.array_equal(read(tmp_path / "two")[0], made)
    overrides = [f"inpaint.images={place / 'images.npz'}", f"inpaint.mask={place / 'mask.png'}"]
    by_api = langevin.load(model).sample(5, steps=3, device="cpu", overrides=overrides).samples
    assert np.array_equal(by_api, made)


@pytest.mark.slow
def test_another_mask_is_another_folder_of_samples(model, place, tmp_path):
    assert sampled(model, place, tmp_path).status == 0
    assert "is done" in sampled(model, place, tmp_path).out
    other = sampled(model, place, tmp_path, mask="other.png")
    assert other.status == 1
    assert "samples.inpaint.mask.sha256: " in other.err


@pytest.mark.parametrize(("mask", "warning"), [("white", "nothing is known"), ("black", "nothing is to be made")])
def test_a_mask_of_one_colour_is_taken_with_a_warning(model, place, tmp_path, mask, warning):
    with pytest.warns(UserWarning, match=warning):
        assert sampled(model, place, tmp_path, mask=f"{mask}.png").status == 0
    if mask == "black":
        with np.load(place / "images.npz") as arrays:
            assert np.array_equal(read(tmp_path)[0], arrays["arr_0"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((), "inpaint.images: must be given: images (.npz, folder or zip) of which a part is to be made anew"),
        (("inpaint.images={images}",), "inpaint.mask: must be given: a PNG of their size, black where they are known"),
        (
            ("inpaint.images={images}", "inpaint.mask={place}/low.png"),
            "of 6 x 8 pixels (height x width); allowed: 8 x 8",
        ),
        (("inpaint.images={images}", "inpaint.mask={images}"), "inpaint.mask: is "),
        (
            ("inpaint.images={place}/large.npz", "inpaint.mask={mask}"),
            "(16, 16, 1); allowed: (8, 8, 1), as the model's",
        ),
        (("inpaint.images=nowhere", "inpaint.mask={mask}"), "inpaint.images=nowhere"),
        (
            ("inpaint.images={images}", "inpaint.mask={mask}", "edit.images={images}"),
            "inpaint.images: is given beside edit.images; allowed: one of them",
        ),
    ],
)
def test_a_mistake_is_reported(model, place, tmp_path, overrides, words):
    names = {"images": place / "images.npz", "mask": place / "mask.png", "place": place}
    given = [override.format(**names) for override in overrides]
    result = call("sample", f"checkpoint={model}", *given, f"out={tmp_path}", "accelerator=cpu")
    assert result.status == 1
    assert words in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "samples.npz").exists()


def test_a_model_without_the_condition_takes_no_images(labelled, place, tmp_path):
    result = sampled(labelled, place, tmp_path)
    assert result.status == 1
    assert "inpaint.mask: is " in result.err
    assert "the model is not trained with conditions=[inpaint]" in result.err
