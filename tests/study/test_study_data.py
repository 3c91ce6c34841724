"""What the data of a study's runs is decides, not where it lies."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from study_helpers import QUIET, study, write

from langevin.content import FILE, Content, read_content
from langevin.files import write_json

QUIET_DATA = (*QUIET, "data=image_folder", "data.image_size=8", "trainer.max_steps=1")


def images(folder, seeds):
    folder.mkdir()
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.png")
    return folder


def of(folder, *, seeds=(0,), **arms):
    return write(
        folder,
        base=[*QUIET_DATA, f"output_dir={folder / 'runs'}"],
        factors={"images": {arm: f"data.path={path}" for arm, path in arms.items()}},
        seeds=list(seeds),
        measures={"train/loss": "down"},
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    one, other = images(place / "one", range(4)), images(place / "other", range(9))
    folder = of(place / "study", a=one, b=other)
    result = study(folder)
    assert "2 of them to train" in result.out
    assert "confounded" not in result.out
    return place


@pytest.mark.slow
def test_a_moved_copy_is_done_and_other_data_is_refused(first, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(first / "study", folder)
    one, other = shutil.copytree(first / "one", tmp_path / "moved"), first / "other"
    assert "0 of them to train" in study(of(folder, a=one, b=other)).out
    result = study(of(folder, a=other, b=other.parent / "study" / ".." / "other"), status=1)
    assert "was trained on other data than the study's; remove the folder:\n  train images: 4 in the run" in result.err


def test_runs_on_data_that_has_changed_between_are_not_mixed(first, tmp_path):
    folder = shutil.copytree(first / "study", tmp_path / "study")
    for run in list(folder.glob("runs/*-seed0-*")):  # as the second seed would be, trained after two images came
        later = shutil.copytree(run, run.with_name(run.name.replace("seed0", "seed1")))
        config = later / "config.yaml"
        config.write_text(config.read_text().replace("\nseed: 0\n", "\nseed: 1\n"))
    study(of(folder, a=first / "one", b=first / "other", seeds=(0, 1)), "table")
    (later,) = folder.glob("runs/a-seed1-*")
    changed = Content({"train": replace(read_content(later).splits["train"], number=6, sha256="0" * 64)})
    write_json(later / FILE, changed.plain())
    result = study(folder, "table", status=1)
    assert "were trained on other data, though the study names the same for both" in result.err
    assert "train images: 4 in the first, 6 in the second" in result.err
