"""What the data is decides which run a command means; where it lies does not."""

import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
import torch
from helpers.commands import CLASSIFIER, call, composed
from PIL import Image
from training_helpers import TINY, train

from langevin import interrupt
from langevin.assembly.saved import load_model
from langevin.checkpoint import RECORD
from langevin.config.identity import automatic_name
from langevin.content import FILE, Content, Split, differences, read_content
from langevin.data.images import ImageFiles

DATA = ("data=image_folder", "data.image_size=8", "callbacks=[checkpoint]", "trainer.max_steps=2")


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)


def write(folder, seeds=range(4), classes=("cat", "dog")):
    """A folder of an image for each seed, the classes in turn."""
    for number, seed in enumerate(seeds):
        path = folder / classes[number % len(classes)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed)).save(path)
    return folder


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def unnamed(folder, *overrides):
    """Train without a name; what was printed, and the runs there are."""
    arguments = {argument.partition("=")[0]: argument for argument in (*TINY, *DATA, *overrides)}
    result = call("train", *arguments.values(), f"output_dir={folder}")
    assert result.status == 0, result.err
    return result, sorted(path.parent.name for path in folder.glob("*/config.yaml"))


def forget(run):
    """Make a run one of before the data was recorded."""
    (run / FILE).unlink()
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path)
    del checkpoint[RECORD]["spec"]["content"]
    torch.save(checkpoint, path)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return train(folder, *DATA, f"data.path={write(folder / 'images')}")


def test_the_record(first):
    held = read_content(first.directory)
    assert held == Content({"train": Split(4, ("cat", "dog"), held.splits["train"].sha256)})
    assert load_model(first.last).spec.content == held.sha256


OTHER = {
    "pixels": (
        {"seeds": (0, 1, 2, 9)},
        "train images: as many of the same classes, but other images, labels or captions (sha256",
    ),
    "added": ({"seeds": range(5)}, "train images: 4 in the run, 5 now"),
    "names": ({"classes": ("cat", "eel")}, "classes: dog only in the run, eel only now"),
    "classes": ({"classes": ("ant", "cat", "dog")}, "classes: none only in the run, ant only now"),
}


@pytest.mark.parametrize(("kind", "place"), [*((kind, "others") for kind in OTHER), ("added", "images")])
def test_other_data_under_the_same_name_is_refused(tmp_path, first, kind, place):
    changes, words = OTHER[kind]
    shutil.copytree(first.directory.parent, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "images")
    before = content(tmp_path / "run")
    path = write(tmp_path / place, **changes)
    for steps in ("trainer.max_steps=2", "trainer.max_steps=4"):  # the first would say that it is done
        result = train(tmp_path, *DATA, steps, f"data.path={path}", status=1)
        assert result.out == ""
        first_line, *lines = result.err[result.err.index("error:") :].splitlines()  # after the progress of decoding
        assert first_line.startswith("error: name=run: that run was trained on other data; choose another name=, or")
        assert len(lines) == 1
        assert lines[0].strip().startswith(words)
    assert content(tmp_path / "run") == before
    if kind == "pixels":
        (tmp_path / "run" / FILE).unlink()  # without it the checkpoint decides, by the digest
        result = train(tmp_path, *DATA, f"data.path={path}", status=1)
        assert "last.ckpt is of a run on other data; put it where it belongs" in result.err


def decoded_otherwise(monkeypatch):
    """From now on images are decoded a little otherwise, as by another version of Pillow."""
    opened = ImageFiles.open
    monkeypatch.setattr(ImageFiles, "open", lambda self, index: opened(self, index).point(lambda level: level ^ 1))


def test_images_that_are_decoded_otherwise_resume_where_accepted(tmp_path, first, monkeypatch):
    shutil.copytree(first.directory.parent, tmp_path, dirs_exist_ok=True)
    decoded_otherwise(monkeypatch)
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    options = (*DATA, f"data.path={tmp_path / 'images'}", "trainer.max_steps=3")
    before = content(tmp_path / "run")
    refused = train(tmp_path, *options, status=1).err
    assert "another version of the image decoder (Pillow)" in refused
    assert "resume with accept_data=true" in refused
    assert content(tmp_path / "run") == before
    resumed = train(tmp_path, *options, "accept_data=true")
    assert "run was trained on data of another digest, which accept_data=true takes to be the same" in resumed.out
    assert "from step 2 to 3" in resumed.out
    held = read_content(tmp_path / "run")
    assert held != read_content(first.directory)
    assert load_model(resumed.last).spec.content == held.sha256
    assert "is done" in train(tmp_path, *options).out, "it is of that data from now on"


def test_what_is_accepted_is_the_decoding_alone(tmp_path, first):
    shutil.copytree(first.directory, tmp_path / "run")
    more = f"data.path={write(tmp_path / 'others', range(5))}"
    refused = train(tmp_path, *DATA, more, "accept_data=true", status=1).err
    assert "train images: 4 in the run, 5 now" in refused
    assert "Pillow" not in refused
    arguments = {argument.partition("=")[0]: argument for argument in (*TINY, *DATA, more, "accept_data=true")}
    unnamed = call("train", *arguments.values(), f"output_dir={tmp_path}")
    assert "accept_data is true; allowed with name=NAME" in unnamed.err


@pytest.mark.parametrize("name", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_that_is_done_needs_no_data(tmp_path, name):
    images = write(tmp_path / "images")
    arguments = {each.partition("=")[0]: each for each in (*TINY, *DATA, f"data.path={images}")}
    command = "train", *arguments.values(), f"output_dir={tmp_path}", *(["name=run"] if name else [])
    assert call(*command).status == 0
    (run,) = (path.parent for path in tmp_path.glob("*/config.yaml"))
    shutil.rmtree(images)
    before = content(run)
    done = call(*command)
    assert done.status == 0, done.err
    assert done.out.startswith(f"{run} is done: it stands at trainer.max_steps=2; its data is not there")
    assert content(run) == before
    for change in ("trainer.max_steps=3", "seed=7", f"data.path={tmp_path / 'elsewhere'}"):
        refused = call(*command, change)
        assert refused.status == 1, change
        assert "is done" not in refused.out
    write(images, range(5))
    other = call(*command)
    assert other.status == (1 if name else 0)
    assert "is done" not in other.out, "what is there is another data set"


def test_the_same_data_elsewhere_is_resumed(tmp_path, first):
    shutil.copytree(first.directory, tmp_path / "run")
    with zipfile.ZipFile(tmp_path / "Bilder für dich.zip", "w") as archive:
        for path in sorted((first.directory.parent / "images").rglob("*.png")):
            archive.write(path, path.relative_to(first.directory.parent / "images"))
    options = (*DATA, f"data.path='{tmp_path}/Bilder für dich.zip'", "trainer.max_steps=3")
    assert "from step 2 to 3" in train(tmp_path, *options).out
    assert read_content(tmp_path / "run") == read_content(first.directory)
    resumed = train(tmp_path, *options)
    assert resumed.out.splitlines() == [f"{tmp_path / 'run'} is done: it stands at step 3 of trainer.max_steps=3"]


def test_each_data_set_of_a_sweep_has_a_run_of_its_own(tmp_path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other", seeds=range(5, 9))
    _, runs = unnamed(tmp_path, f"data.path={one},{other}", "-m")
    assert len(runs) == 2
    assert len({read_content(tmp_path / run).sha256 for run in runs}) == 2
    result, again = unnamed(tmp_path, f"data.path={shutil.copytree(other, tmp_path / 'copy')}")
    assert "is done" in result.out
    assert again == runs


@pytest.mark.slow
def test_a_run_of_before_the_data_was_recorded_is_resumed_with_a_notice(tmp_path, first):
    images = first.directory.parent / "images"
    options = {argument.partition("=")[0]: argument for argument in (*TINY, *DATA, f"data.path={images}")}
    old = tmp_path / automatic_name(*composed("train", *options.values()))
    shutil.copytree(first.directory, old)
    forget(old)
    notice = f"{old} does not record which data it was trained on; data.path={images} is taken to be the same"

    result, runs = unnamed(tmp_path, f"data.path={images}")
    assert result.out.splitlines()[0] == notice
    assert "is done" in result.out
    assert not (old / FILE).exists()
    result, runs = unnamed(tmp_path, f"data.path={images}", "trainer.max_steps=3")
    assert result.out.splitlines()[0] == notice
    assert "from step 2 to 3" in result.out
    assert runs == [old.name]
    assert load_model(old / "checkpoints" / "last.ckpt").spec.content == read_content(first.directory).sha256

    result, runs = unnamed(tmp_path, f"data.path={shutil.copytree(images, tmp_path / 'copy')}", "trainer.max_steps=3")
    assert "is done" in result.out
    assert "does not record" not in result.out
    result, runs = unnamed(tmp_path, f"data.path={write(tmp_path / 'others', range(9))}")
    assert len(runs) == 2, "its automatic name is taken by no other data"


@pytest.mark.slow
def test_a_classifier_is_of_its_data_too(tmp_path):
    options = (*CLASSIFIER, "data=image_folder", "data.image_size=8", "trainer.val_check_interval=null", "name=run")
    one, other = write(tmp_path / "one"), write(tmp_path / "other", range(5))
    assert call("train", *options, f"output_dir={tmp_path}", f"data.path={one}").status == 0
    result = call("train", *options, f"output_dir={tmp_path}", f"data.path={other}")
    assert result.status == 1
    assert result.err.endswith("  train images: 4 in the run, 5 now\n")


def test_a_signal_while_the_images_are_decoded(tmp_path, monkeypatch):
    """The command ends as it does when it is interrupted in training, and the next one resumes from what is decoded."""
    monkeypatch.setattr(interrupt, "_received", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    path, opened, open_image = write(tmp_path / "images", range(150)), [], ImageFiles.open

    def signalled(self, index):
        opened.append(index)
        if index == 64 and len(opened) < 150:
            os.kill(os.getpid(), signal.SIGTERM)
        return open_image(self, index)

    monkeypatch.setattr(ImageFiles, "open", signalled)
    stopped = train(tmp_path, *DATA, f"data.path={path}", status=interrupt.STATUS)
    assert "interrupted by SIGTERM with" in stopped.err
    assert "images of imagefolder-train decoded; rerun the same command to resume" in stopped.err
    assert not (tmp_path / "run").exists()
    kept = len(opened)
    assert 64 < kept <= 150
    monkeypatch.setattr(interrupt, "_received", None)
    assert "150 images" in train(tmp_path, *DATA, f"data.path={path}").out
    assert sorted(opened) == list(range(150))


def test_differences_of_splits_and_orders():
    one = Content({"train": Split(1200, ("a", "b"), "1"), "test": Split(3, ("a", "b"), "2")})
    assert differences(one, one) == []
    other = Content({"train": Split(1200, ("b", "a"), "3")})
    assert differences(one, other) == [
        "classes: a, b in the run, b, a now",
        "test images: 3 in the run, none now",
    ]
    unlabelled = Content({"train": Split(1, None, "4"), "test": Split(3, None, "2")})
    assert differences(one, unlabelled) == [
        "train images: 1,200 in the run, 1 now",
        "classes: a, b in the run, none now",
    ]
