"""Training on images of several sizes, and samples of sizes that are asked for."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import TINY, call
from helpers.digits import digits
from PIL import Image
from training_helpers import differing, numbers

import langevin

pytestmark = pytest.mark.e2e

SIZES = ((16, 16), (12, 21), (21, 12))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Digits, drawn wide and narrow."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (image, label) in enumerate(zip(*digits(), strict=True)):
        if number < 60:
            (folder / str(label)).mkdir(exist_ok=True)
            Image.fromarray(image[:, :, 0]).resize(SIZES[number % 3]).save(folder / str(label) / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def options(photos, tmp_path_factory):
    return (
        *TINY,
        *("data=image_folder", f"data.path={photos}", "data.image_size=16", "data.channels=1"),
        *("loader=buckets", "loader.multiple_of=4", "conditions=[class_label,size]"),
        *("trainer.max_steps=6", "model.channel_multipliers=[1,1]", f"output_dir={tmp_path_factory.mktemp('runs')}"),
    )


@pytest.fixture(scope="module")
def run(options):
    result = call("train", *options, "name=whole")
    assert result.status == 0, result.err
    return Path(options[-1].partition("=")[2]) / "whole"


@pytest.mark.slow
def test_a_resumed_run_is_the_same(run, options):
    for steps in (2, 6):
        result = call("train", *options, "name=resumed", f"trainer.max_steps={steps}")
        assert result.status == 0, result.err
    assert "from step 2 to 6" in result.out
    last = Path("checkpoints") / "last.ckpt"
    assert differing(numbers(run.with_name("resumed") / last), numbers(run / last)) == []


def test_held_out_images_need_not_be_told_of(tmp_path):
    """They are whole squares."""
    validated = ("trainer.val_check_interval=2", "trainer.limit_val_batches=1", f"output_dir={tmp_path}", "name=run")
    result = call("train", *TINY, "data=digits", "loader=buckets", "conditions=[size]", *validated)
    assert result.status == 0, result.err
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["val/loss"]] == ["2"]


def test_samples_are_of_the_size_asked_for_and_told_so(run, tmp_path):
    def sampled(name, *overrides):
        result = call(
            "sample", f"checkpoint={run}", "num_samples=3", "batch_size=2", f"out={tmp_path / name}", *overrides
        )
        assert result.status == 0, result.err
        with np.load(tmp_path / name / "samples.npz") as arrays:
            return arrays["arr_0"], json.loads(str(arrays["record"]))

    wide, about = sampled("wide", "size=[12,20]")
    assert wide.shape == (3, 12, 20, 1)
    assert about["samples"]["size"] == [12, 20]
    usual, about = sampled("usual")
    assert usual.shape == (3, 16, 16, 1)
    assert "size" not in about["samples"]
    in_python = langevin.load(run).sample(3, size=(12, 20), steps=2, batch_size=2, device="cpu")
    assert np.array_equal(in_python.samples, wide)
    same, _ = sampled("same", "size=[16,16]")
    assert np.array_equal(same, usual), "whole squares are what it is told by itself"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("size=[13,20]",), "size: is [13, 20]; allowed: multiples of 2"),
        (("size=[0,20]",), "size: is [0, 20]; allowed: "),
        (("size=[12,20]", "edit.images=photos.npz"), "size: is given beside edit.images; allowed: one of them"),
    ],
)
def test_mistakes_in_sampling(run, overrides, message):
    result = call("sample", f"checkpoint={run}", *overrides)
    assert result.status == 1
    assert message in result.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=dit_s",), "loader: gives images of several sizes, and DiT takes those of its own alone; allowed: "),
        (
            ("model.channel_multipliers=[1,1,1,1]",),
            "loader.multiple_of: is 4; allowed: a multiple of 8, since the network halves sides to 1/8",
        ),
        (
            ("conditions=[low_res]", "conditions.low_res.size=4"),
            "conditions.low_res: is made for images of one size; leave it out, or take loader=default",
        ),
        (
            ("loader=default",),
            "conditions.size: tells how images were cropped, and these are all squares; take loader=buckets, or",
        ),
        (("loader.longest=0.5",), "loader.longest: is 0.5; allowed: "),
        (("loader.multiple_of=null",), "loader.multiple_of: is null; allowed: a whole number, at least 1"),
        (("loader.multiple_of=abc",), "loader.multiple_of: is 'abc'; allowed: a whole number, at least 1"),
    ],
)
def test_mistakes_in_training(options, overrides, message):
    if any(each.startswith(("model=", "loader=")) for each in overrides):
        options = [each for each in options if not each.startswith(("model.", "loader."))]
    result = call("train", *dict.fromkeys((*options, *overrides)), "name=wrong")
    assert result.status == 1
    assert message in result.err
