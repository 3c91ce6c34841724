"""Hints beside images: which file is of which image, what is stored of them, and what is wrong with them."""

import pickle

import numpy as np
import pytest
from PIL import Image

from langevin.data.captioned import Captioned
from langevin.data.hints import HintFiles
from langevin.data.image_folder import ImageFolder
from langevin.data.module import DataModule, preprocess
from langevin.data.read_images import left_out, read_images
from langevin.data.stream import Positions
from langevin.data.summary import summary
from langevin.errors import UserError
from langevin.interrupt import Interrupted


def prepared(path, cache_dir, kind=ImageFolder, hints=True, **options):
    module = DataModule(kind(path, 8, hints=hints, **options), 2, cache_dir=str(cache_dir))
    module.prepare_data()
    return module


@pytest.fixture
def pairs(pixels):
    """Three images of other sizes; the hints are the images upside down, in colour and of any format."""
    images = {f"{name}.png": pixels(seed, *size) for seed, (name, size) in enumerate(SIZES.items())}
    hints = {f"{name}.control.{suffix}": images[f"{name}.png"][::-1].copy() for name, suffix in SUFFIXES.items()}
    return images | hints


SIZES = {"cat/a": (8, 8), "cat/b.c": (20, 14), "dog/a": (9, 30)}
SUFFIXES = {"cat/a": "png", "cat/b.c": "bmp", "dog/a": "TIF"}


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("name", ["images", "images.zip"])
def test_a_hint_passes_what_its_image_passes(tmp_path, write, pairs, name, resize):
    module = prepared(write(pairs, name), tmp_path / "cache", resize=resize)
    grey = prepared(write(pairs, name), tmp_path / "cache", hints=False, channels=1, resize=resize)
    assert summary(module).startswith("data: 3 images in 2 classes, a hint each")
    assert "left out" not in summary(module)
    batch = module.train_set.batch([2, 0, 1])
    assert batch["hint"].shape == (3, 1, 8, 8)
    upside_down = grey.train_set.batch([2, 0, 1])["x"].flip(-2)
    assert (batch["hint"].int() - upside_down.int()).abs().max() <= 1, "rounding of an odd number of rows apart"
    assert module.train_set.hints.folder != grey.train_set.folder


def test_hint_and_image_are_mirrored_together(tmp_path, write, pairs):
    module = prepared(write(pairs), tmp_path / "cache", channels=1)
    flips = np.array([True, False, True])
    gathered = module._batches_of("train")[Positions(np.arange(3), flips, np.zeros(3))]
    batch = preprocess(gathered, module.source.modality)
    plain = preprocess(module.train_set.batch(range(3)), module.source.modality)
    assert plain["hint"].dtype == plain["x"].dtype
    assert 0 <= plain["hint"].min() < plain["hint"].max() <= 1
    for index, flip in enumerate(flips):
        for column in ("x", "hint"):
            wanted = plain[column][index].flip(-1) if flip else plain[column][index]
            assert batch[column][index].equal(wanted)


def test_without_the_condition_they_are_no_images_and_that_is_said(tmp_path, write, pairs):
    path = write(pairs)
    module = prepared(path, tmp_path / "cache", hints=False)
    assert "3 images in 2 classes; left out: 3 unread .control files" in summary(module)
    assert module.train_set.hints is None
    assert "hint" not in module.train_set.batch([0])
    with_hints = prepared(path, tmp_path / "cache")
    assert with_hints.train_set.folder == module.train_set.folder, "the images are decoded once"
    assert with_hints.content != module.content


def test_they_are_a_part_of_the_content(tmp_path, write, pairs):
    first = prepared(write(pairs), tmp_path / "cache")
    again = prepared(write(pairs, "copy"), tmp_path / "cache")
    assert again.content == first.content
    pairs["cat/a.control.png"] = 255 - pairs["cat/a.control.png"]
    assert prepared(write(pairs, "other"), tmp_path / "cache").content != first.content
    assert np.array_equal(
        pickle.loads(pickle.dumps(first.train_set)).batch([1])["hint"], first.train_set.batch([1])["hint"]
    )


def test_an_interrupted_cache_of_hints_resumes(tmp_path, write, pixels, monkeypatch):
    files = {f"{n:03}.png": pixels(n, 8, 8) for n in range(130)}
    files |= {f"{n:03}.control.png": pixels(n + 1, 8, 8) for n in range(130)}
    path, opened = write(files), []
    prepared(path, tmp_path / "cache", hints=False)
    monkeypatch.setattr("langevin.data.cache.received", lambda: "SIGTERM")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    with pytest.raises(Interrupted, match="of imagefolder-train-hints decoded"):
        prepared(path, tmp_path / "cache")
    monkeypatch.setattr("langevin.data.cache.received", lambda: None)
    open_one = HintFiles.open
    monkeypatch.setattr(HintFiles, "open", lambda self, index: opened.append(index) or open_one(self, index))
    module = prepared(path, tmp_path / "cache")
    assert 0 < len(set(opened)) < 130
    whole = prepared(path, tmp_path / "another")
    assert module.content == whole.content
    assert np.array_equal(module.train_set.hints.samples, whole.train_set.hints.samples)


def test_those_of_broken_images_are_left_out_with_them(tmp_path, write, pairs):
    pairs["cat/b.c.png"] = b"is no image"
    module = prepared(write(pairs), tmp_path / "cache", skip_broken=True)
    assert len(module.train_set) == len(module.train_set.hints) == 2
    del pairs["cat/b.c.png"], pairs["cat/b.c.control.bmp"]
    whole = prepared(write(pairs, "whole"), tmp_path / "cache")
    assert np.array_equal(module.train_set.hints.samples, whole.train_set.hints.samples)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cat/a.control.png": None}, r"1 of 3 images have no hint \(cat/a.png\)"),
        ({"cat/a.png": None}, r"1 of 3 hints is of no image \(cat/a.control.png\)"),
        ({"cat/a.control.jpg": (8, 8)}, "cat/a.control.jpg and cat/a.control.png are hints of one image"),
        ({"cat/a.control.png": (8, 9)}, "cat/a.control.png in .* it is 9x8, its image cat/a.png is 8x8"),
        ({"cat/a.control.png": b"none"}, "cat/a.control.png in .* cannot be used: it is damaged"),
        (
            dict.fromkeys((f"{name}.control.{suffix}" for name, suffix in SUFFIXES.items())),
            "kind=pairs reads a hint beside each image, such as a.control.png beside a.png .* there is none",
        ),
    ],
)
def test_what_is_wrong_is_one_message(tmp_path, write, pixels, pairs, changes, words):
    for name, change in changes.items():
        pairs[name] = pixels(9, *change) if isinstance(change, tuple) else change
    path = write({name: content for name, content in pairs.items() if content is not None})
    with pytest.raises(UserError, match=words):
        prepared(path, tmp_path / "cache")
    if words.startswith("1 of"):
        assert not (tmp_path / "cache").exists(), "before anything is decoded"


def test_captions_and_hints_together(tmp_path, write, pixels):
    files = {"1.png": pixels(1), "1.control.jpg": pixels(2), "1.txt": b"one", "1.control.txt": b"is of no image"}
    files |= {"2.png": pixels(3), "2.control.png": pixels(4), "2.json": {"text": ["two", "zwei"]}, "3.png": pixels(5)}
    path = write(files)
    module = prepared(path, tmp_path / "cache", Captioned, skip_uncaptioned=True)
    assert [module.train_set.captions.of(index) for index in range(2)] == [["one"], ["two", "zwei"]]
    stored = read_images(write({"2.png": pixels(4)}, "alone"), cache_dir=str(tmp_path / "cache"))[0]
    wanted = Image.fromarray(stored[0]).convert("L").resize((8, 8), Image.Resampling.LANCZOS)
    assert np.array_equal(module.train_set.hints.samples[1, ..., 0], np.asarray(wanted))
    assert summary(module).startswith("data: 2 images, a hint each, 3 captions")
    assert "1 .txt file, 1 uncaptioned image" in summary(module)
    with pytest.raises(UserError, match="1 of 3 images have no caption"):
        prepared(write({"3.control.png": pixels(5)}), tmp_path / "cache", Captioned)
    plain = prepared(path, tmp_path / "cache", Captioned, hints=False, skip_uncaptioned=True)
    assert "3 unread .control files" in summary(plain)


def test_given_hints_are_those_of_a_folder_of_pairs(tmp_path, write, pixels):
    files = {"0/a.png": pixels(1), "0/a.control.png": pixels(2), "1/b.png": pixels(3), "1/b.control.png": pixels(4)}
    files["dataset.json"] = {"labels": [["0/a.png", 5], ["1/b.png", 7]]}
    path, cache_dir = write(files), str(tmp_path / "cache")
    images, labels = read_images(path, cache_dir=cache_dir)
    assert np.array_equal(images, np.stack([pixels(1), pixels(3)]))
    assert left_out(path) == "2 unread .control files"
    hints, of_hints = read_images(path, cache_dir=cache_dir, hints=True)
    assert np.array_equal(hints, np.stack([pixels(2), pixels(4)]))
    assert labels.tolist() == of_hints.tolist() == [5, 7]
    alone = write({"a.control.png": pixels(2)}, "alone")
    assert np.array_equal(read_images(alone, cache_dir=cache_dir, hints=True)[0], hints[:1])
    with pytest.raises(UserError, match=r"holds no image .*; a.control.png is the hint of an image"):
        read_images(alone, cache_dir=cache_dir)
