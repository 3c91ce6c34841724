import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.commands import ROOT, TINY, call
from helpers.digits import digits
from PIL import Image

from langevin.assembly.saved import load_model
from langevin.checkpoint import find_checkpoint
from langevin.content import read_content
from langevin.diffusion.draws import SampleDraws
from langevin.images import from_uint8
from langevin.likelihood.discrete_vlb import DiscreteVLB

QUICK = (
    "likelihoods=[discrete_vlb,continuous_vlb]",
    "likelihoods.discrete_vlb.num_times=3",
    "likelihoods.continuous_vlb.num_times=3",
    "accelerator=cpu",
)


def evaluate(*overrides, status=0):
    result = call("evaluate", *overrides)
    assert "Traceback" not in result.err
    assert result.status == status, result.err
    return result


def report_of(folder):
    return json.loads((folder / "likelihood.json").read_text())


def test_from_training_to_a_number(labelled):
    result = evaluate(f"checkpoint={labelled}", *QUICK, "num_images=20", "seed=5")
    report = report_of(labelled)
    kept = {"likelihoods", "settings", "images", "seed", "checkpoint", "ema", "trained_on", "step", "version"}
    assert set(report) == kept
    held = read_content(labelled)
    assert (report["trained_on"], report["images"]["sha256"]) == (held.sha256, held.splits["test"].sha256)
    assert report["images"]["number"] == 20
    assert report["images"]["split"] == "test"
    assert report["images"]["data"]["_target_"] == "langevin.data.digits.Digits"
    assert (report["seed"], report["step"]) == (5, 6)
    assert report["checkpoint"] == str(labelled / "checkpoints" / "last.ckpt")
    assert report["settings"]["discrete_vlb"]["num_times"] == 3
    for name, values in report["likelihoods"].items():
        bits = values.pop("bits_per_dim")
        terms = values.pop("terms", [])
        assert bits == pytest.approx(sum(values.values()))
        assert f"{bits:.4f} bits/dim: " in next(line for line in result.out.splitlines() if line.startswith(name))
        assert len(terms) == (1000 if name == "discrete_vlb" else 0)
        # 20 images have at most 60 random times, and all have the first.
        assert 0 < sum(term is not None for term in terms[1:]) <= 60 or not terms
    assert str(labelled / "likelihood.json") in result.out
    assert "NaN" not in (labelled / "likelihood.json").read_text()


def test_it_is_the_bound_of_the_ema_weights_on_the_test_digits(labelled, tmp_path):
    """Computed here from the checkpoint, without the command."""
    evaluate(f"checkpoint={labelled}", *QUICK, "num_images=30", f"out={tmp_path}", "batch_size=7")
    images, labels = digits()
    x = from_uint8(torch.from_numpy(images[1500:1530]).permute(0, 3, 1, 2))
    model = load_model(find_checkpoint(labelled))
    cond = {"label": torch.from_numpy(labels[1500:1530]).long()}
    likelihood = DiscreteVLB(3)
    with torch.no_grad():
        parts = likelihood.measure(model.denoiser, x, cond, SampleDraws(0, range(30), (1, 8, 8)))
        others = likelihood.measure(
            model.denoiser, x, {"label": (cond["label"] + 1) % 10}, SampleDraws(0, range(30), (1, 8, 8))
        )
    expected = {name: float(value.mean()) / math.log(2) for name, value in parts.items()}
    found = report_of(tmp_path)["likelihoods"]["discrete_vlb"]
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert float(others["steps"].mean()) != pytest.approx(float(parts["steps"].mean()), rel=1e-5)


def test_the_batch_does_not_matter(plain, tmp_path):
    found = []
    for batch_size in (5, 64):
        out = tmp_path / str(batch_size)
        evaluate(f"checkpoint={plain}", *QUICK, "num_images=13", f"batch_size={batch_size}", f"out={out}")
        found.append(report_of(out)["likelihoods"])
    for name, values in found[0].items():
        assert {**values, "terms": 0} == pytest.approx({**found[1][name], "terms": 0}, rel=1e-5)


def test_the_ode(plain, tmp_path):
    options = ("likelihoods=[probability_flow]", "likelihoods.probability_flow.steps=2", "accelerator=cpu")
    evaluate(f"checkpoint={plain}", *options, "num_images=4", f"out={tmp_path}")
    values = report_of(tmp_path)["likelihoods"]["probability_flow"]
    assert set(values) == {"bits_per_dim", "prior", "volume", "encoder", "decoder"}
    assert all(math.isfinite(value) for value in values.values())


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory):
    """Test digits as a folder of classes, which has no test split."""
    folder = tmp_path_factory.mktemp("images")
    images, labels = digits()
    for index in range(1500, 1530):
        path = folder / str(labels[index]) / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(images[index, ..., 0]).save(path)
    return folder


def test_other_data_and_the_training_split(labelled, folder_of_images, tmp_path):
    own = [f"out={tmp_path / 'own'}", "split=train", "num_images=30"]
    evaluate(f"checkpoint={labelled}", *QUICK, *own)
    chosen = ("data=image_folder", f"data.path={folder_of_images}", "data.image_size=8", "data.channels=1")
    evaluate(f"checkpoint={labelled}", *QUICK, *chosen, "split=train", f"out={tmp_path / 'other'}")
    reports = [report_of(tmp_path / name) for name in ("own", "other")]
    assert [report["images"]["number"] for report in reports] == [30, 30]
    assert reports[1]["images"]["data"]["path"] == str(folder_of_images)
    bits = [report["likelihoods"]["discrete_vlb"]["bits_per_dim"] for report in reports]
    assert bits[0] != pytest.approx(bits[1], rel=1e-6)
    missing = evaluate(f"checkpoint={labelled}", *QUICK, *chosen, status=1)
    assert (
        "split=test: the data has no test images; allowed: split=train, or data=NAME with a test split" in missing.err
    )


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["samples=somewhere"], "samples: give one of samples=FILE_OR_DIR, checkpoint=RUN_OR_FILE, "),
        (["reference=somewhere"], "reference: goes with metrics; likelihoods are measured on data=NAME"),
        (["metrics=[fid]"], "metrics: choose at least one, such as metrics=[fid,kid] or likelihoods=[discrete_vlb], "),
        (["split=validation"], "split: is 'validation'; allowed: "),
        (["num_images=0"], "num_images: is 0; allowed: a whole number, at least 1 or null"),
        (["num_images=298"], "num_images is 298; allowed: at most 297, all of split=test, or null"),
        (["seed=-1"], "seed: is -1; allowed: a whole number, at least 0"),
        (["likelihoods.discrete_vlb.num_time=3"], "num_time: no such option (did you mean num_times?)"),
        (["data.image_size=16"], "data: images of (channels, height, width) (1, 16, 16), but the model was trained"),
        (["data.image_siz=8"], "data.image_siz: no such option (did you mean image_size?)"),
        (["schedule.num_steps=5"], "schedule: no such option"),
    ],
)
def test_a_mistake(overrides, words, plain, tmp_path):
    result = evaluate(f"checkpoint={plain}", *QUICK, f"out={tmp_path / 'out'}", *overrides, status=1)
    assert words in result.err
    assert not (tmp_path / "out").exists()


def test_without_a_likelihood(plain):
    result = evaluate(f"checkpoint={plain}", status=1)
    assert " or likelihoods=[discrete_vlb], and not both" in result.err
    assert "reference" not in result.err


def test_likelihoods_are_not_of_samples():
    result = evaluate("samples=somewhere", "data=digits", "likelihoods=[discrete_vlb]", status=1)
    assert "likelihoods: goes with checkpoint=; leave it out, and choose metrics=[fid]" in result.err


def test_a_checkpoint_that_is_none(tmp_path):
    result = evaluate(f"checkpoint={tmp_path / 'nowhere'}", *QUICK, status=1)
    assert f"checkpoint={tmp_path / 'nowhere'} does not exist" in result.err


def test_labels_where_the_model_is_given_them(labelled, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for index, image in enumerate(digits()[0][:4]):
        Image.fromarray(image[..., 0]).save(folder / f"{index}.png")
    chosen = ("data=image_folder", f"data.path={folder}", "data.image_size=8", "data.channels=1", "split=train")
    result = evaluate(f"checkpoint={labelled}", *QUICK, *chosen, status=1)
    assert "data: the model is conditioned on 10 classes, but the images have none" in result.err


def test_a_schedule_without_steps(tmp_path):
    run = tmp_path / "run"
    made = call("train", *TINY, "schedule=flow", "parameterization=flow", f"output_dir={tmp_path}", "name=run")
    assert made.status == 0, made.err
    result = evaluate(f"checkpoint={run}", *QUICK, "num_images=2", status=1)
    assert "likelihoods.discrete_vlb: DiscreteVLB is a sum over discrete steps, but the schedule is cont" in result.err
    evaluate(f"checkpoint={run}", "likelihoods=[continuous_vlb]", "num_images=2", "accelerator=cpu")
    assert list(report_of(run)["likelihoods"]) == ["continuous_vlb"]


@pytest.mark.slow
def test_two_processes_measure_the_same(labelled, tmp_path):
    options = (f"checkpoint={labelled}", *QUICK, "num_images=45", "batch_size=7")
    evaluate(*options, f"out={tmp_path / 'one'}")
    done = subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *options, "devices=2", f"out={tmp_path / 'two'}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = (report_of(tmp_path / count)["likelihoods"] for count in ("one", "two"))
    for name, values in one.items():
        for key, value in values.items():
            np.testing.assert_allclose(
                np.array(value, dtype=float), np.array(two[name][key], dtype=float), rtol=1e-12, equal_nan=True
            )
