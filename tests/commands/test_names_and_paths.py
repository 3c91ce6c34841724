"""What a shell accepts as a path or a name, the commands accept."""

import shutil

import numpy as np
import pytest
from helpers.commands import TINY, call
from PIL import Image


def folder_of_images(path):
    path.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index in range(8):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8)).save(path / f"{index}.png")
    return path


def train(folder, *overrides):
    return call("train", *TINY, *overrides, f"output_dir={folder}")


@pytest.mark.parametrize("name", ["dü", "x (1), y=2#z"])
def test_a_folder_of_any_name(name, tmp_path):
    images = folder_of_images(tmp_path / name)
    result = train(
        tmp_path / "out", "data=image_folder", f"data.path={images}", "data.image_size=8", f"name=run {name}"
    )
    assert result.status == 0, result.err
    assert (tmp_path / "out" / f"run {name}" / "checkpoints" / "last.ckpt").is_file()


def test_a_checkpoint_of_any_name(plain, tmp_path):
    path = tmp_path / "p" / "epoch=3-step=2.ckpt"
    path.parent.mkdir()
    shutil.copy(plain / "checkpoints" / "last.ckpt", path)
    out = tmp_path / "a, b (c)"
    result = call("sample", f"checkpoint={path}", f"out={out}", "num_samples=2", "accelerator=cpu")
    assert result.status == 0, result.err
    assert (out / "samples.npz").is_file()


def test_a_name_of_digits_is_a_name(tmp_path):
    assert train(tmp_path, "name=1_1_1").status == 0
    assert (tmp_path / "1_1_1").is_dir()


def test_a_name_that_no_file_system_takes_is_one_error(tmp_path):
    result = train(tmp_path, f"name={'n' * 300}")
    assert result.status == 1
    assert result.err.startswith("error:")
    assert "name too long" in result.err
    assert "Traceback" not in result.err


def test_parts_are_replaced_under_an_experiment(tmp_path):
    small = [option for option in TINY if not option.startswith("callbacks")]
    options = ("experiment=digits", *small, "callbacks=[checkpoint]", "ema=images", "metrics=[]", "name=run")
    result = call("train", *options, f"output_dir={tmp_path}")
    assert result.status == 0, result.err
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "half_life" in text
    assert "max_decay" not in text
    result = call("train", "experiment=digits", "lr_schedule=null", f"output_dir={tmp_path}")
    assert "lr_schedule: must be chosen" in result.err
    assert "lr_schedule.steps" not in result.err


@pytest.mark.parametrize("argument", ["model.channels={_target_: os.getcwd}", "data.flip={_target_: os.getcwd}"])
def test_a_component_stands_only_in_the_place_of_one(argument, tmp_path):
    result = train(tmp_path, argument)
    assert result.status == 1
    assert "holds a component where none is expected" in result.err
