"""A metric of a user's own is a Python file and a YAML file outside of the package."""

import json

import numpy as np
import pytest
from helpers.commands import ROOT, call
from helpers.digits import digits
from PIL import Image

OWN = ("--config-dir", str(ROOT / "tests" / "helpers" / "conf"), "data=digits", "batch_size=16")


def evaluate(*overrides):
    return call("evaluate", *OWN, *overrides)


def report_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def save(place, images, labels=None):
    np.savez(place, arr_0=images, **({} if labels is None else {"arr_1": labels}))
    return place


def test_a_metric_sees_the_condition_of_each_sample(tmp_path):
    """Of images and of a model's samples; the last batch is smaller than the others."""
    images, labels = digits()
    samples, asked = images[1500:1550], labels[1500:1550].copy()
    asked[::7] = (asked[::7] + 1) % 10
    save(tmp_path / "samples.npz", samples, asked)
    result = evaluate(f"samples={tmp_path}", "metrics=[nearest_mean]")
    assert result.status == 0, result.err
    flat = images.reshape(len(images), -1).astype(float)
    means = np.stack([flat[:1500][labels[:1500] == label].mean(0) for label in range(10)])
    nearest = ((flat[1500:1550, None] - means) ** 2).sum(2).argmin(1)
    expected = (nearest == asked).mean()
    assert 0.5 < expected < 0.9, "the wrong labels count"
    assert report_of(tmp_path)["metrics"] == {"nearest_mean": pytest.approx(expected)}

    bare = evaluate(f"samples={save(tmp_path / 'bare.npz', samples)}", "metrics=[nearest_mean]")
    assert bare.status == 1
    assert "error: metrics.nearest_mean needs the label of each sample" in bare.err


def test_the_samples_of_a_model_have_the_requested_condition(labelled, tmp_path):
    options = f"checkpoint={labelled}", "num_samples=20", "accelerator=cpu", "metrics=[nearest_mean]"
    for name, labels in (("one", "labels=3"), ("other", "labels=[5,7]")):
        result = evaluate(*options, labels, f"out={tmp_path / name}")
        assert result.status == 0, result.err
    one, other = (report_of(tmp_path / name) for name in ("one", "other"))
    assert one["protocol"]["samples"]["labels"] == [3]
    assert other["protocol"]["samples"]["labels"] == [5, 7]
    assert one["metrics"] != other["metrics"], "the images are of next to no class, the requests are all that differs"


@pytest.fixture
def pair(tmp_path):
    """Samples and their targets, in folders whose files are written in no order."""
    targets = digits()[0][:40]
    noise = np.random.default_rng(0).integers(-20, 21, targets.shape)
    samples = (targets + noise).clip(0, 255).astype(np.uint8)
    for kind, images in (("samples", samples), ("targets", targets)):
        (tmp_path / kind).mkdir()
        for index in np.random.default_rng(1).permutation(40):
            Image.fromarray(images[index, :, :, 0]).save(tmp_path / kind / f"{index:03d}.png")
    return samples, targets


def test_a_metric_sees_the_target_of_each_sample(pair, tmp_path):
    samples, targets = pair
    result = evaluate(f"samples={tmp_path / 'samples'}", f"target={tmp_path / 'targets'}", "metrics=[squared_error]")
    assert result.status == 0, result.err
    error = (((samples.astype(float) - targets) / 255) ** 2).mean()
    content = report_of(tmp_path / "samples")
    assert content["metrics"] == {"squared_error": pytest.approx(error)}
    assert content["protocol"]["target"]["number"] == 40
    assert len(content["protocol"]["target"]["sha256"]) == 64


def test_targets_that_do_not_go_with_the_samples_are_refused(pair, tmp_path):
    samples = f"samples={tmp_path / 'samples'}"
    few = save(tmp_path / "few.npz", pair[1][:39])
    for options, message in (
        ((samples, "metrics=[squared_error]"), "metrics.squared_error needs the target of each sample"),
        (
            (samples, f"target={few}", "metrics=[squared_error]"),
            f"target={few}: 39 samples of shape",
        ),
        (
            ("checkpoint=run", f"target={few}", "metrics=[squared_error]"),
            "target: goes with samples=FILE_OR_DIR; leave it out",
        ),
    ):
        result = evaluate(*options)
        assert result.status == 1
        assert message in result.err
        assert "Traceback" not in result.err
