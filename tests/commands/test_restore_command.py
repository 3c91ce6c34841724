"""`langevin sample restoration=...` and `langevin evaluate restoration=...`."""

import json

import numpy as np
import pytest
from helpers.commands import call

AVERAGE = ("operators=[average]", "operators.average.factor=2")


@pytest.fixture(scope="module")
def originals(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("originals")
    result = call("sample", f"checkpoint={plain}", f"out={out}", "num_samples=5", "seed=5", "accelerator=cpu")
    assert result.status == 0, result.err
    return out / "samples.npz"


def restored(plain, out, *overrides, status=0):
    options = (f"checkpoint={plain}", f"out={out}", "batch_size=2", "accelerator=cpu")
    steps = () if any("sampler" in override for override in overrides) else ("sampler=ddim", "sampler.steps=4")
    result = call("sample", *options, *steps, *overrides)
    assert result.status == status, result.err
    assert "Traceback" not in result.err
    return result


def arrays(out):
    with np.load(out / "samples.npz") as held:
        return held["arr_0"], json.loads(str(held["record"]))


def test_measured_images_are_restored_like_the_originals_that_they_are_measured_of(plain, originals, tmp_path):
    with np.load(originals) as held:
        images = held["arr_0"]
    small = images.reshape(5, images.shape[1] // 2, 2, images.shape[2] // 2, 2, -1).mean((2, 4))
    np.savez(tmp_path / "small.npz", arr_0=small.round().astype(np.uint8))
    given = (f"measurement.images={tmp_path / 'small.npz'}", "restoration=ddnm", *AVERAGE)
    first = restored(plain, tmp_path / "a", *given, "thresholding=none")
    made, record = arrays(tmp_path / "a")
    assert len(made) == 5
    blocks = made.reshape(5, made.shape[1] // 2, 2, made.shape[2] // 2, 2, -1)
    inside = (blocks.min((2, 4)) > 0) & (blocks.max((2, 4)) < 255)  # elsewhere pixels have left the range of bytes
    assert inside.any()
    assert np.abs(blocks.mean((2, 4)) - small.round())[inside].max() <= 0.5
    assert "off what was measured, root mean square" in first.out
    assert (tmp_path / "a" / "grid.png").is_file()
    assert record["samples"]["restored"]["operators"] == [
        {"_target_": "langevin.restoration.operators.average.Average", "factor": 2}
    ]
    assert "is done" in restored(plain, tmp_path / "a", *given, "thresholding=none").out
    other = restored(plain, tmp_path / "a", *given, "thresholding=none", "measurement.noise=0.1", status=1)
    assert "samples.restored.noise: 0.0 there, 0.1 now" in other.err


def test_a_mask_of_nothing_known_is_plain_sampling(plain, originals, tmp_path):
    np.save(tmp_path / "all.npy", np.ones(np.load(originals)["arr_0"].shape[1:3], bool))
    mask = ("operators=[mask]", f"operators.mask.file={tmp_path / 'all.npy'}", f"measurement.originals={originals}")
    restored(plain, tmp_path / "a", "restoration=ddnm", *mask, "seed=3")
    restored(plain, tmp_path / "b", "seed=3", "num_samples=5")
    np.testing.assert_array_equal(arrays(tmp_path / "a")[0], arrays(tmp_path / "b")[0])


def test_known_pixels_are_kept_whatever_the_batches(plain, originals, tmp_path):
    given = ("restoration=repaint", "operators=[box]", f"measurement.originals={originals}", "sampler=ancestral")
    given += ("sampler.steps=8", "restoration.jump_length=3", "restoration.jump_repeats=2")
    restored(plain, tmp_path / "a", *given)
    restored(plain, tmp_path / "b", *given, "batch_size=5")
    (a, _), (b, _), original = arrays(tmp_path / "a"), arrays(tmp_path / "b"), np.load(originals)["arr_0"]
    np.testing.assert_allclose(a.astype(int), b.astype(int), atol=1)
    np.testing.assert_array_equal(a[:, 0], original[:, 0])
    assert (a != original).any()


def test_a_class_is_not_guessed(labelled, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "images.npz", arr_0=images)
    np.savez(tmp_path / "labelled.npz", arr_0=images, arr_1=np.array([2, 0, 7]))
    given = ("restoration=ddnm", *AVERAGE)
    refused = restored(labelled, tmp_path / "a", *given, f"measurement.originals={tmp_path / 'images.npz'}", status=1)
    assert "labels: must be given: samples are of classes, and the images have no labels" in refused.err
    restored(labelled, tmp_path / "a", *given, f"measurement.originals={tmp_path / 'labelled.npz'}")
    assert np.load(tmp_path / "a" / "samples.npz")["arr_1"].tolist() == [2, 0, 7]


def test_an_evaluation_restores_what_is_held_out(plain, tmp_path):
    given = (f"checkpoint={plain}", "restoration=pigdm", *AVERAGE, "metrics=[psnr,consistency]", "num_samples=6")
    result = call("evaluate", *given, f"out={tmp_path}", "sampler=ddim", "sampler.steps=4", "accelerator=cpu")
    assert result.status == 0, result.err
    held = json.loads((tmp_path / "metrics.json").read_text())
    # The method ends in a projection: what is off is rounding and what leaves the range of bytes.
    assert 0 < held["metrics"]["consistency"] < 40
    assert held["protocol"]["samples"]["restored"]["originals"]["split"] in ("test", "train")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["restoration=ddnm"], "operators: is empty; allowed: what is measured, such as operators=[average]"),
        (["operators=[average]"], "operators: goes with restoration=NAME"),
        (["measurement.noise=0.1"], "measurement.noise: goes with restoration=NAME"),
        (["restoration=ddnm", *AVERAGE], "measurement: give one of measurement.images=IMAGES"),
        (
            ["restoration=ddnm", *AVERAGE, "measurement.images={images}"],
            "operators of the model's samples give (4, 4, 1)",
        ),
        (
            ["restoration=ddnm", "operators=[average]", "operators.average.factor=3", "measurement.images={images}"],
            "operators.average.factor: is 3",
        ),
        (
            [
                "restoration=ddnm",
                "operators=[bicubic]",
                "operators.bicubic.factor=16",
                "measurement.originals={images}",
            ],
            "operators.bicubic.factor: is 16; allowed for images of 8 x 8 pixels: 2, 4, 8",
        ),
        (
            ["restoration=repaint", *AVERAGE, "measurement.originals={images}", "sampler=heun"],
            "sampler: is used with restoration=RePaint, which acts between the steps; allowed: ancestral, ddim, euler",
        ),
        (
            ["restoration=ilvr", *AVERAGE, "measurement.originals={images}", "measurement.noise=0.1"],
            "measurement.noise: is 0.1; allowed with ILVR, which takes measurements to be exact: 0",
        ),
        (
            ["restoration=ddnm", *AVERAGE, "measurement.originals={images}", "edit.images={images}"],
            "restoration: is given beside edit.images; allowed: one of them",
        ),
        (["restoration=ddnm", *AVERAGE, "measurement.images=nowhere"], "measurement.images=nowhere"),
        (["restoration=ddnm", *AVERAGE, "measurement.originals={images}", "labels=3"], "labels is [3]"),
        (["invert={images}"], "invert: is '{images}'; allowed: its options invert.images"),
    ],
    ids=lambda value: value[-1][:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_reported(plain, originals, tmp_path, overrides, words):
    result = restored(plain, tmp_path, *(override.format(images=originals) for override in overrides), status=1)
    assert words.format(images=originals) in result.err
    assert not (tmp_path / "samples.npz").exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["restoration=ddnm", "operators=[average]", "operators.average.factor=3"], "operators.average.factor: is 3"),
        (["restoration=dps", *AVERAGE, "sampler=dpm_solver_2m"], "sampler: is used with restoration=DPS"),
        (["metrics=[consistency]"], "metrics.consistency: needs what is measured of samples"),
        (
            ["restoration=mmps", *AVERAGE, "sampler=euler", "sampler.s_churn=5"],
            "sampler.s_churn: is 5; allowed with a restoration: 0",
        ),
        (
            ["metrics=[]", "likelihoods=[discrete_vlb]", "restoration=ddnm", *AVERAGE],
            "restoration: is not used by likelihoods, which sample nothing; leave it out",
        ),
        (
            ["restoration=pigdm", *AVERAGE, "guidance=classifier", "guidance.classifier={classifier}"],
            "guidance: has no gradient of its own, which restoration=PiGDM takes",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_an_evaluation_reports_a_mistake_before_data_is_read(plain, classifier, tmp_path, overrides, words):
    overrides = [override.format(classifier=classifier) for override in overrides]
    given = (f"checkpoint={plain}", "metrics=[psnr]", "num_samples=6", f"out={tmp_path}", "accelerator=cpu")
    result = call("evaluate", *given, f"loader.cache_dir={tmp_path / 'cache'}", *overrides)
    assert result.status == 1
    assert words in result.err
    assert not (tmp_path / "cache").exists()
