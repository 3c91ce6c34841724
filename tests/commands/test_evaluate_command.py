import json
import socket
import time
import urllib.request

import numpy as np
import pytest
from helpers.commands import call
from helpers.digits import digits
from PIL import Image

from langevin.filling import filling


def evaluate(*overrides):
    result = call("evaluate", *overrides)
    assert "Traceback" not in result.err
    return result


def write(path, images, labels=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, arr_0=images, **({} if labels is None else {"arr_1": labels}))
    return path


@pytest.fixture
def real(tmp_path):
    """Digits that are not in the training set, and their classes, as a samples file."""
    images, labels = digits()
    return write(tmp_path / "real" / "samples.npz", images[1500:1600], labels[1500:1600])


def test_from_training_to_a_number(labelled, tmp_path):
    out = tmp_path / "images"
    assert call("sample", f"checkpoint={labelled}", f"out={out}", "num_samples=20").status == 0
    result = evaluate(f"samples={out}", "data=digits", "metrics=[class_accuracy]", "batch_size=8")
    assert result.status == 0, result.err
    report = json.loads((out / "metrics.json").read_text())
    assert set(report) == {"metrics", "samples", "reference", "model", "protocol", "version"}
    assert 0 <= report["metrics"]["class_accuracy"] <= 1
    assert report["samples"] == {"path": str(out), "number": 20}
    assert report["reference"]["number"] == 1500
    assert report["model"]["step"] == 6
    protocol = report["protocol"]
    assert (protocol["num_samples"], protocol["features"]) == (20, None), "no features were needed"
    assert protocol["samples"]["sampler"]["_target_"] == "langevin.samplers.ddim.DDIM", "sample.py has recorded"
    assert "class_accuracy" in result.out
    assert str(out / "metrics.json") in result.out


def test_real_digits_are_what_they_are_and_false_labels_are_seen(real, tmp_path):
    result = evaluate(f"samples={real}", "data=digits", "metrics=[class_accuracy]")
    assert result.status == 0, result.err
    right = json.loads((real.parent / "metrics.json").read_text())["metrics"]["class_accuracy"]
    with np.load(real) as file:
        false = write(tmp_path / "false.npz", file["arr_0"], (file["arr_1"] + 1) % 10)
    assert evaluate(f"samples={false}", "data=digits", "metrics=[class_accuracy]", f"out={tmp_path / 'o'}").status == 0
    wrong = json.loads((tmp_path / "o" / "metrics.json").read_text())["metrics"]["class_accuracy"]
    assert right > 0.9
    assert wrong < 0.1


def test_a_reference_file_and_a_folder_of_samples(tmp_path):
    images, labels = digits()
    reference = write(tmp_path / "reference.npz", images[:500], labels[:500])
    for index in range(500, 530):
        path = tmp_path / "images" / str(labels[index]) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[index, ..., 0]).save(path)
    (tmp_path / "images" / "1" / "x.heic").write_bytes(b"x")
    result = evaluate(f"samples={tmp_path / 'images'}", f"reference={reference}", "metrics=[class_accuracy]")
    assert result.status == 0, result.err
    report = json.loads((tmp_path / "images" / "metrics.json").read_text())
    assert f"samples={tmp_path / 'images'}: left out 1 .heic file\n" in result.out
    assert report["metrics"]["class_accuracy"] > 0.8
    assert report["samples"]["number"] == 30
    assert report["reference"] == {"path": str(reference), "number": 500}


BAD_FILES = {
    "nowhere": "there is no such file or folder",
    "nowhere.npz": "there is no such file",
    "empty": "holds no image",
    "text.npz": "cannot be read as an .npz file",
    "truncated.npz": "cannot be read as an .npz file",
    "text.txt": "this is neither a folder nor a complete zip or tar file",
    "other.npz": "holds images; it must hold arr_0",
    "floats.npz": "its arr_0 is float64",
    "flat.npz": "its arr_0 is uint8 of shape (4, 8, 8)",
    "none.npz": "its arr_0 is uint8 of shape (0, 8, 8, 1)",
    "labels.npz": "its arr_1 is int64 of shape (2,) for 4 images",
    "objects.npz": "cannot be read as an .npz file",
}


@pytest.fixture
def bad(tmp_path):
    images = digits()[0][:4]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.txt").write_text("no archive")
    whole = write(tmp_path / "whole.npz", images).read_bytes()
    (tmp_path / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "other.npz", images=images)
    write(tmp_path / "floats.npz", images / 255)
    write(tmp_path / "flat.npz", images[..., 0])
    write(tmp_path / "none.npz", images[:0])
    write(tmp_path / "labels.npz", images, np.arange(2))
    write(tmp_path / "objects.npz", np.array([{"a": 1}], dtype=object))
    return tmp_path


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_samples(name, bad):
    before = sorted(bad.iterdir())
    result = evaluate(f"samples={bad / name}", "data=digits", "metrics=[class_accuracy]")
    assert result.status == 1
    assert f"samples={bad / name}: " in result.err
    assert BAD_FILES[name] in result.err
    assert sorted(bad.iterdir()) == before


@pytest.mark.parametrize("name", ["nowhere", "empty", "truncated.npz"])
def test_a_bad_reference(name, bad, real):
    result = evaluate(f"samples={real}", f"reference={bad / name}", "metrics=[class_accuracy]")
    assert result.status == 1
    assert f"reference={bad / name}: " in result.err
    assert BAD_FILES[name] in result.err


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=digits", "reference=somewhere"], "reference: give either reference=FILE_OR_DIR or data=NAME"),
        ([], "reference: give either reference=FILE_OR_DIR or data=NAME, and not both"),
        (["data=digits", "metrics=[]"], "metrics: choose at least one, such as metrics=[fid,kid]"),
        (["data=digits", "metrics=null"], "metrics: choose at least one"),
        (["data=digits", "metrics=[fidd]"], "metrics=fidd: no such option (did you mean fid?)"),
        (["data=digits", "batch_size=0"], "batch_size: is 0; allowed: a whole number, at least 1"),
        (
            ["data=digits", "metrics=[fid]", "metrics.fid.min_sample=3"],
            "min_sample: no such option (did you mean min_samples?)",
        ),
        (["data=digits", "metrics=[fid]", "metrics.fid.min_samples=1"], "metrics.fid.min_samples"),
        (["data=digits", "model.channels=3"], "model: no such option; allowed: samples, checkpoint"),
        (["data=digits", "metrics=[fid]"], "num_samples=100 is too few for metrics.fid, which asks for 2048"),
        (["data=digits", "metrics=[inception_score]", "metrics.inception_score.splits=101"], "fewer splits"),
        (["data=digits", "accelerator=abacus", "metrics=[class_accuracy]"], "accelerator=abacus, devices=1: "),
    ],
)
def test_a_mistake(overrides, words, real):
    result = evaluate(f"samples={real}", *overrides)
    assert result.status == 1
    assert words in result.err
    assert [path.name for path in real.parent.iterdir()] == ["samples.npz"]


def test_mistakes_are_reported_together():
    result = evaluate("metrics=[]", "devices=1.5", "batchsize=3", "reference=a", "data=digits")
    assert result.status == 1
    assert result.err.splitlines()[0] == "error: 5 mistakes in the config:"
    for path in ("samples", "metrics", "devices", "batchsize", "reference"):
        assert f"\n  {path}: " in result.err


def test_samples_and_reference_must_be_of_one_size_and_colour(real, tmp_path):
    images, labels = digits()
    large = write(tmp_path / "large.npz", images[:20].repeat(2, 1).repeat(2, 2), labels[:20])
    colour = write(tmp_path / "colour.npz", images[:20].repeat(3, 3), labels[:20])
    for samples, reference, words in (
        (real, large, "(1, 8, 8), but the reference's are of (1, 16, 16); both must be of one size"),
        (large, real, "both must be of one size"),
        (real, colour, "(1, 8, 8), but the reference's are of (3, 8, 8); both must be of one size, and both grey"),
        (colour, real, "(3, 8, 8), but the reference's are of (1, 8, 8)"),
    ):
        result = evaluate(f"samples={samples}", f"reference={reference}", "metrics=[class_accuracy]")
        assert result.status == 1
        assert f"samples={samples}: images " in result.err
        assert words in result.err


def test_labels_where_a_metric_needs_them(real, tmp_path):
    with np.load(real) as file:
        bare = write(tmp_path / "bare.npz", file["arr_0"])
    without = evaluate(f"samples={bare}", "data=digits", "metrics=[class_accuracy]")
    assert without.status == 1
    assert "metrics.class_accuracy needs" in without.err
    reference = evaluate(f"samples={real}", f"reference={bare}", "metrics=[class_accuracy]")
    assert reference.status == 1
    assert "metrics.class_accuracy needs class labels, the data has none" in reference.err


def test_without_weights_and_without_an_answer_from_the_internet(real, tmp_path, monkeypatch):
    """A proxy that takes the call and says nothing is what a firewall looks like."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("langevin.features.weights.CONNECTION_SECONDS", 0.5)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)
        began = time.monotonic()
        result = evaluate(f"samples={real}", "data=digits", "metrics=[fid]", "metrics.fid.min_samples=2")
        seconds = time.monotonic() - began
    monkeypatch.setattr(urllib.request, "_opener", None)
    assert result.status == 1
    assert "features.weights=null: the weights are not cached at" in result.err
    assert str(tmp_path / "torch") in result.err
    assert "give features.weights=PATH" in result.err
    assert "drop the metrics that use them, such as fid" in result.err
    assert 0.5 < seconds < 30
    assert not (real.parent / "metrics.json").exists()


def test_weights_that_are_none(real, tmp_path):
    (tmp_path / "weights.pth").write_text("no weights")
    for weights, words in ((tmp_path / "weights.pth", "is not a state dict"), (tmp_path / "nowhere", "cannot be read")):
        chosen = ["metrics=[fid]", "metrics.fid.min_samples=2", f"features.weights={weights}"]
        result = evaluate(f"samples={real}", "data=digits", *chosen)
        assert result.status == 1
        assert f"features.weights={weights}: " in result.err
        assert words in result.err


def test_two_at_once_do_not_mix_what_they_write_beside_the_samples(real, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    with np.load(real) as file:
        for index, image in enumerate(file["arr_0"][:10]):
            Image.fromarray(image.squeeze(-1)).save(images / f"{index}.png")
    for samples, folder in ((real, real.parent), (images, images)):
        with filling(folder):
            before = sorted(folder.iterdir())
            refused = evaluate(f"samples={samples}", f"reference={real}", "metrics=[kid]", "features=inception")
            assert refused.status == 1
            assert refused.err == (
                f"error: out={folder}: another process is filling that folder; wait for it, or choose another out=\n"
            )
            assert sorted(folder.iterdir()) == before
    done = evaluate(f"samples={real}", "data=digits", "metrics=[class_accuracy]")
    assert done.status == 0, done.err
    assert sorted(path.name for path in real.parent.iterdir()) == ["metrics.json", "samples.npz"]


def test_missing_samples_leave_no_folder(tmp_path):
    refused = evaluate(f"samples={tmp_path / 'no' / 'samples.npz'}", "data=digits", "metrics=[class_accuracy]")
    assert refused.status == 1
    assert "samples" in refused.err
    assert not (tmp_path / "no").exists()
