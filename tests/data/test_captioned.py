"""Captions are found wherever they may lie, and what is wrong with them is one message."""

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from langevin.data.captioned import Captioned, CaptionedImages
from langevin.data.module import DataModule
from langevin.data.summary import summary
from langevin.errors import UserError


def prepared(path, cache_dir, **options):
    module = DataModule(Captioned(str(path), 8, **options), 1, cache_dir=str(cache_dir))
    module.prepare_data()
    return module


def all_captions(samples):
    return [samples.captions.of(index) for index in range(len(samples))]


def lines(*entries):
    return "\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries).encode()


@pytest.mark.parametrize("name", ["images", "images.zip", "images.tar", "shards"])
def test_captions_of_every_layout(tmp_path, write, pixels, name):
    files = {
        "a/1.png": pixels(1),
        "a/1.Txt": b"\xef\xbb\xbfa red car\r\n\r\n  ein Auto \n",
        "a/2.jpg": pixels(2),
        "a/2.JSON": {"caption": "дом 🏠", "width": 3},
        "b/3.png": pixels(3),
        "b/metadata.jsonl": lines(
            {"file_name": "c/4.png", "text": ["x" * 10_000, "y\u2028z"]}, {"file_name": "3.png", "text": "z"}
        ),
        "b/c/4.png": pixels(4),
        "b/c/4.txt": b"is not read",
        "b/notes.txt": b"are of no image",
    }
    path = write(files, name if name.endswith("zip") else "images")
    if name == "images.tar":
        tar_of(Path(path), tmp_path / name)
    if name == "shards":
        (tmp_path / name).mkdir()
        for part in ("a", "b"):
            tar_of(Path(path) / part, tmp_path / name / f"{part}.tar")
    module = prepared(tmp_path / name, tmp_path / "cache")
    expected = [["a red car", "ein Auto"], ["дом 🏠"], ["z"], ["x" * 10_000, "y\u2028z"]]
    assert all_captions(module.train_set) == expected
    assert module.num_classes is None
    assert {"auto", "дом", "🏠"} < set(module.spec.vocabulary)
    assert summary(module) == "data: 4 images, 6 captions (6 of them distinct); left out: 1 .txt file"
    for index in range(2):
        seen = module.train_set.samples[index].mean((0, 1))
        assert np.abs(seen - pixels(index + 1).mean((0, 1))).max() < 8, "the images are in the captions' order"


def test_shards_are_indexed_once(tmp_path, write, pixels, monkeypatch):
    (tmp_path / "shards").mkdir()
    tar_of(Path(write({"1.png": pixels(1), "1.txt": b"one"})), tmp_path / "shards" / "0.tar")
    first = prepared(tmp_path / "shards", tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr("langevin.data.archive.Tar", lambda path: pytest.fail("was indexed"))
        again = prepared(tmp_path / "shards", tmp_path / "cache")
        assert summary(again) == summary(first)
    tar_of(Path(write({"1.txt": b"another"})), tmp_path / "shards" / "0.tar")
    assert all_captions(prepared(tmp_path / "shards", tmp_path / "cache").train_set) == [["another"]]


def test_shards_whose_captions_an_earlier_version_has_missed_are_read_again(tmp_path, write, pixels, monkeypatch):
    """It went by suffixes in small letters; what the captions of a folder are is known by their names."""
    files = {"1.png": pixels(1), "1.txt": b"one", "2.png": pixels(2), "2.TXT": b"two"}
    (tmp_path / "shards").mkdir()
    folder = Path(write(files))
    tar_of(folder, tmp_path / "shards" / "0.tar")
    missed = property(lambda self: {name: name for name in self.archive.names if name.endswith(".txt")})
    with monkeypatch.context() as patched:
        patched.setattr(CaptionedImages, "_beside", missed)
        patched.setattr(CaptionedImages, "fingerprint", lambda self: self.archive.fingerprint(self._read()))
        before = prepared(tmp_path / "shards", tmp_path / "cache", skip_uncaptioned=True)
        assert all_captions(before.train_set) == [["one"]]
    after = prepared(tmp_path / "shards", tmp_path / "cache", skip_uncaptioned=True)
    assert all_captions(after.train_set) == [["one"], ["two"]]
    (folder / "2.TXT").rename(folder / "2.txt")
    of_folder = CaptionedImages(str(folder), "data.path")
    assert of_folder.fingerprint() == of_folder.archive.fingerprint(["1.png", "2.png", "1.txt", "2.txt"]), "as before"


def test_what_lies_beside_images_takes_little_room(tmp_path):
    """Of a million images each further text would take 100 MB."""
    for number in range(500):
        for suffix in ("png", "txt" if number else "TXT"):
            (tmp_path / f"{number:0100}.{suffix}").touch()
    images = CaptionedImages(str(tmp_path), "data.path")
    assert (len(images.files), len(images.archive.names)) == (500, 1000)
    tracemalloc.start()
    assert len(images._beside) == 500
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 500 * 100, "bytes"
    assert images.uncaptioned == []


def tar_of(folder, path):
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.rglob("*")):
            tar.add(file, file.relative_to(folder), recursive=False)


def test_a_changed_caption_is_other_data(tmp_path, write, pixels):
    path = Path(write({"1.png": pixels(1), "1.txt": b"one"}))
    before = prepared(path, tmp_path / "cache")
    (path / "1.txt").write_text("another")
    after = prepared(path, tmp_path / "cache")
    assert all_captions(after.train_set) == [["another"]]
    assert before.content.sha256 != after.content.sha256


def test_images_without_captions_are_named_and_can_be_left_out(tmp_path, write, pixels):
    path = write({"1.png": pixels(1), "2.png": pixels(2), "2.txt": b"two", "3.png": pixels(3)})
    with pytest.raises(UserError) as raised:
        prepared(path, tmp_path / "cache")
    assert str(raised.value) == (
        f"data.path={path}: 2 of 3 images have no caption (1.png, 3.png); write a .txt file beside each, or name it in "
        "metadata.jsonl, or leave these out with data.skip_uncaptioned=true"
    )
    module = prepared(path, tmp_path / "cache", skip_uncaptioned=True)
    assert all_captions(module.train_set) == [["two"]]
    assert "; left out: 2 uncaptioned images" in summary(module)


def test_images_for_testing(tmp_path, write, pixels):
    train = write({"1.png": pixels(1), "1.txt": b"one"})
    test = write({"2.png": pixels(2), "2.txt": b"two"}, "held_out")
    assert all_captions(prepared(train, tmp_path / "cache", test_path=test).test_set) == [["two"]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.txt": b" \n"}, "1.txt is an empty caption"),
        ({"1.txt": b"\xff\xfe"}, "1.txt cannot be read as UTF-8 text"),
        ({"1.json": b"{"}, "1.json is no JSON"),
        ({"1.json": {"width": 3}}, '1.json has no "text" that is a caption or a list of captions'),
        ({"1.json": {"text": ["a", " "]}}, "1.json has an empty caption"),
        ({"metadata.jsonl": b'{"text": "a"}'}, 'line 1 of metadata.jsonl has no "file_name"'),
        (
            {"metadata.jsonl": b'\n{"file_name": "2.png", "text": "a"}'},
            "line 2 of metadata.jsonl names 2.png, which",
        ),
        ({"metadata.jsonl": b"[]"}, "line 1 of metadata.jsonl is to be an object"),
        (
            {"metadata.jsonl": lines(*2 * [{"file_name": "1.png", "text": "a"}])},
            "names 1.png, as a line before it does",
        ),
    ],
)
def test_captions_that_cannot_be_read(tmp_path, write, pixels, files, message):
    with pytest.raises(UserError, match=message) as raised:
        prepared(write({"1.png": pixels(1)} | files), tmp_path / "cache")
    assert str(raised.value).startswith("data.path=")


def test_no_images(tmp_path, write):
    with pytest.raises(UserError, match=r"holds no image \(looked for .* in it, its subfolders and its tars\)"):
        prepared(write({"1.txt": b"one"}), tmp_path / "cache")
    with pytest.raises(UserError, match=r"data\.path=null"):
        Captioned(None, 8).check()


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "shards").mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        info = tarfile.TarInfo("1.png")
        info.size = len(buffer.getvalue())
        tar.addfile(info, io.BytesIO(buffer.getvalue()))
    whole = (tmp_path / "shards" / "0.tar").read_bytes()
    (tmp_path / "shards" / "1.tar").write_bytes(whole[:600])
    with pytest.raises(UserError, match=r"shards/1\.tar: cannot be opened"):
        prepared(tmp_path / "shards", tmp_path / "cache")
