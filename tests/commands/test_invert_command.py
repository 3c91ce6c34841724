"""`langevin sample invert.images=...` and `trajectory=...`."""

import numpy as np
import pytest
import torch
from helpers.commands import call
from helpers.images import shown
from PIL import Image

from langevin.images import to_uint8


@pytest.fixture(scope="module")
def made(labelled, tmp_path_factory):
    """Images of a run's own, which inversion must find the noise of."""
    out = tmp_path_factory.mktemp("made")
    result = call("sample", f"checkpoint={labelled}", f"out={out}", "num_samples=6", "sampler.steps=20")
    assert result.status == 0, result.err
    return out


def invert(run, images, out, *overrides):
    return call("sample", f"checkpoint={run}", f"invert.images={images}", f"out={out}", "thresholding=none", *overrides)


def arrays(file):
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def difference(run, made, out, steps):
    result = invert(run, made, out, f"sampler.steps={steps}")
    assert result.status == 0, result.err
    back, original = (arrays(folder / "samples.npz") for folder in (out, made))
    assert np.array_equal(back["arr_1"], original["arr_1"]), "the originals' labels"
    return np.abs(back["arr_0"].astype(float) - original["arr_0"]).mean()


def test_goes_to_noise_and_back(labelled, made, tmp_path):
    few, many = difference(labelled, made, tmp_path / "few", 5), difference(labelled, made, tmp_path / "many", 30)
    assert many < 2
    assert many < few / 2
    noise = arrays(tmp_path / "many" / "noise.npz")["arr_0"]
    rows = shown(np.asarray(Image.open(tmp_path / "many" / "grid.png")), 2, 9, heads=True, captions=True)
    back, original = (arrays(folder / "samples.npz")["arr_0"] for folder in (tmp_path / "many", made))
    assert np.array_equal(rows[0][::3], original[:3, ..., 0]), "original, noise, what it came to"
    assert np.array_equal(rows[1][2::3], back[3:, ..., 0])
    assert np.array_equal(rows[0][1], to_uint8(torch.from_numpy(noise[0, 0])))
    assert noise.shape == (6, 1, 8, 8)
    assert noise.dtype == np.float32
    assert 0.2 < noise.std() < 2


def test_batches_do_not_matter(labelled, made, tmp_path):
    assert invert(labelled, made, tmp_path / "a", "batch_size=6", "sampler.steps=5").status == 0
    assert invert(labelled, made, tmp_path / "b", "batch_size=4", "sampler.steps=5", "num_samples=5").status == 0
    a, b = (arrays(tmp_path / name / "noise.npz")["arr_0"] for name in "ab")
    assert len(b) == 5
    np.testing.assert_allclose(b, a[:5], atol=1e-4)


@pytest.mark.slow
def test_other_labels_make_other_images(labelled, made, tmp_path):
    assert invert(labelled, made, tmp_path / "own", "sampler.steps=20").status == 0
    assert invert(labelled, made, tmp_path / "seven", "sampler.steps=20", "labels=7").status == 0
    own, seven = (arrays(tmp_path / name / "samples.npz") for name in ("own", "seven"))
    assert set(seven["arr_1"]) == {7}
    assert np.abs(own["arr_0"].astype(float) - seven["arr_0"]).mean() > 0.5


def test_needs_a_sampler_that_can_go_back(labelled, made, tmp_path):
    result = invert(labelled, made, tmp_path / "out", "sampler=ancestral", "sampler.steps=5")
    assert result.status != 0
    assert "needs an invertible sampler: sampler=ddim" in result.err
    assert not (tmp_path / "out").exists()


def test_needs_images_of_the_models_size(labelled, tmp_path):
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((2, 16, 16, 1), np.uint8))
    result = invert(labelled, tmp_path / "large.npz", tmp_path / "out")
    assert result.status != 0
    assert "(16, 16, 1)" in result.err
    assert "(8, 8, 1)" in result.err


def test_trajectory_ends_in_the_samples(labelled, tmp_path):
    overrides = ("num_samples=12", "sampler.steps=5", "trajectory=3")
    result = call("sample", f"checkpoint={labelled}", f"out={tmp_path}", *overrides)
    assert result.status == 0, result.err
    seen, samples = arrays(tmp_path / "trajectory.npz"), arrays(tmp_path / "samples.npz")
    assert seen["t"].tolist() == [1000, 800, 600, 400, 200]
    assert seen["x_t"].shape == seen["x"].shape == (5, 8, 8, 8, 1)
    assert np.array_equal(seen["x"][-1], samples["arr_0"][:8]), "DDIM's last step is the predicted image"
    assert not np.array_equal(seen["x"][0], seen["x"][-1])
    rows = shown(np.asarray(Image.open(tmp_path / "trajectory.png")), 16, 4, heads=True)
    for place, column in enumerate((0, 2, 4)):
        for row, kind in enumerate(("x_t", "x")):
            assert np.array_equal([strip[place] for strip in rows[row::2]], seen[kind][column, ..., 0])
    assert np.array_equal([strip[3] for strip in rows[::2]], samples["arr_0"][:8, ..., 0])
