import errno
import functools
import json
import os
import pickle
import re
import time

import numpy as np
import pytest
from filelock import FileLock
from helpers.processes import Code

from langevin import interrupt
from langevin.data.cache import CachedSamples, default_cache_dir, open_or_build, resolve_cache_dir
from langevin.data.image_folder import ImageFolder
from langevin.data.images import ArrayImages, SquareTransform
from langevin.data.source import SampleSet
from langevin.errors import UserError

ARRAY = np.random.default_rng(0).integers(0, 256, (150, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(150) % 4
NAMES = ("a", "b", "c", "d")


def image_set():
    return SampleSet(ArrayImages(ARRAY), LABELS, NAMES)


def build(folder, load=image_set, fingerprint="1"):
    return open_or_build(folder, "toy", fingerprint, SquareTransform(6, 3), load)


def not_again():
    raise AssertionError("decoded a second time")


def caches(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_pixels_labels_and_names_come_back(tmp_path):
    for cache in (build(tmp_path / "new"), build(tmp_path / "new", not_again)):
        np.testing.assert_array_equal(cache.samples, ARRAY)
        np.testing.assert_array_equal(cache.labels, LABELS)
        assert cache.class_names == NAMES
        assert not cache.samples.flags.writeable


def test_unlabelled(tmp_path):
    cache = build(tmp_path, lambda: SampleSet(ArrayImages(ARRAY)))
    assert (cache.labels == -1).all()
    assert cache.class_names is None


def test_content_and_transform_choose_the_cache(tmp_path):
    build(tmp_path)
    build(tmp_path, fingerprint="2")
    small = open_or_build(tmp_path, "toy", "1", SquareTransform(3, 3), image_set)
    assert small.samples.shape == (150, 3, 3, 3)
    assert len(caches(tmp_path)) == 3


def test_pickling_carries_the_folder_only(tmp_path):
    cache = build(tmp_path)
    packed = pickle.dumps(cache)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).samples, ARRAY)


def damage_cut(folder):
    os.truncate(folder / "images.npy", 1000)


def damage_labels(folder):
    (folder / "labels.npy").unlink()


def damage_meta(folder):
    (folder / "meta.json").write_text("{")


def damage_meta_kind(folder):
    (folder / "meta.json").write_text("[]")


def damage_header(folder):
    with open(folder / "images.npy", "r+b") as file:
        file.write(b"x" * 20)


@pytest.mark.parametrize("damage", [damage_cut, damage_labels, damage_meta, damage_meta_kind, damage_header])
def test_a_damaged_cache_is_built_again(tmp_path, damage):
    folder = build(tmp_path).folder
    damage(folder)
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        CachedSamples(folder)
    np.testing.assert_array_equal(build(tmp_path).samples, ARRAY)


@pytest.mark.parametrize("kind", ["cut", "junk", "empty"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("where", ["images", "images.zip"])
def test_a_broken_image_is_named_and_leaves_nothing(tmp_path, write, pixels, suffix, kind, where):
    path = write({f"{i:03}.{suffix}": pixels(i, 40, 40) for i in range(5)}, "whole")
    with open(f"{path}/003.{suffix}", "rb") as file:
        content = file.read()
    broken = {"cut": content[: len(content) * 2 // 3], "junk": b"junk" * 30, "empty": b""}[kind]
    files = {f"{i:03}.{suffix}": pixels(i, 40, 40) for i in range(5)} | {f"003.{suffix}": broken}
    path = write(files, where)
    source = ImageFolder(path, image_size=8)
    source.check()
    with pytest.raises(UserError, match=re.escape(f"003.{suffix} in {path}")):
        build(tmp_path / "cache", lambda: source.load("train"))
    assert caches(tmp_path / "cache") == []


@pytest.fixture
def partly_broken(write, pixels):
    """A folder of 100 images in two classes, 30 of them broken, over several chunks of the decoding."""
    broken = set(range(0, 90, 3))
    files = {f"{'ab'[i % 2]}/{i:03}.png": b"junk" if i in broken else pixels(i, 8, 8) for i in range(100)}
    return write(files), broken


def test_all_broken_images_are_listed_at_once(tmp_path, partly_broken):
    path, broken = partly_broken
    source = ImageFolder(path, image_size=8)
    with pytest.raises(UserError, match=r"30 of 100 images cannot be used; .*data\.skip_broken=true:") as error:
        build(tmp_path / "cache", lambda: source.load("train"))
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    assert lines[-1].strip() == "and 10 more"
    copied = pickle.loads(pickle.dumps(error.value))  # as a process hands it to another
    assert str(copied) == str(error.value)
    assert copied.broken.keys() == error.value.broken.keys()
    order = sorted(broken, key=lambda i: ("ab"[i % 2], i))
    assert [f"{i:03}.png" in line for i, line in zip(order, lines[1:-1], strict=False)] == [True] * 20


def test_broken_images_can_be_left_out(tmp_path, partly_broken, pixels):
    path, broken = partly_broken
    source = ImageFolder(path, image_size=8, skip_broken=True)
    for load in (lambda: source.load("train"), not_again):
        cache = open_or_build(tmp_path / "cache", "toy", "1", SquareTransform(8, 3), load)
        whole = [i for i in [*range(0, 100, 2), *range(1, 100, 2)] if i not in broken]
        np.testing.assert_array_equal(cache.samples, [pixels(i, 8, 8) for i in whole])
        assert cache.labels.tolist() == [i % 2 for i in whole]
        assert cache.class_names == ("a", "b")
        assert len(cache.skipped) == 30
        assert cache.skipped[0] == f"a/000.png in {path}"
    assert len(os.listdir(cache.folder)) == 3
    assert build(tmp_path / "other").skipped == ()


def test_enlarged_images_are_counted_over_an_interruption(tmp_path, write, pixels, monkeypatch):
    monkeypatch.setattr(interrupt, "_received", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    small = {3, 20, 21, 70, 90}
    path = write({f"{i:03}.png": pixels(i, *((5, 9) if i in small else (8, 9))) for i in range(100)})
    source = ImageFolder(path, image_size=8)

    def load():
        images = source.load("train")
        opened = type(images.lazy).open

        def stop(self, index):
            if index == 64:
                interrupt._received = "SIGTERM"
            return opened(self, index)

        monkeypatch.setattr(type(images.lazy), "open", stop)
        return images

    with pytest.raises(interrupt.Interrupted):
        open_or_build(tmp_path / "cache", "toy", "1", source.transform, load)
    monkeypatch.undo()
    monkeypatch.setattr(interrupt, "_received", None)
    for again in (lambda: source.load("train"), not_again):
        cache = open_or_build(tmp_path / "cache", "toy", "1", source.transform, again)
        assert cache.enlarged == (5, tuple(f"{i:03}.png in {path}" for i in (3, 20, 21)))


def test_what_remains_must_be_of_every_class(tmp_path, write, pixels):
    for files, message in (
        ({"a/1.png": pixels(0), "b/2.png": b"junk", "b/3.png": b""}, "no image of class b can be used"),
        ({"1.png": b"junk", "2.png": b""}, "2 of 2 images cannot be used"),
    ):
        source = ImageFolder(write(files, message), image_size=8, skip_broken=True)
        with pytest.raises(UserError, match=message):
            build(tmp_path / "cache", functools.partial(source.load, "train"))


def test_a_fault_of_the_disk_is_no_broken_image(tmp_path):
    class Faulty(ArrayImages):
        def open(self, index):
            if index == 7:
                raise OSError(errno.EIO, "Input/output error")
            return super().open(index)

    with pytest.raises(UserError, match=r"image 7 cannot be used: .*Input/output error"):
        build(tmp_path, lambda: SampleSet(Faulty(ARRAY), LABELS, NAMES, skip_broken=True))
    assert caches(tmp_path) == []


def test_a_changed_byte_in_a_zip_is_found_by_its_checksum(tmp_path, write, pixels):
    path = write({"a.png": pixels(0), "b.png": pixels(1)}, "images.zip")
    with open(path, "r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(UserError, match=r"a\.png in .*CRC"):
        build(tmp_path / "cache", lambda: ImageFolder(path, image_size=8).load("train"))


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path):
    # The kernel refuses to let any file of the process grow past 4 kB: a real OSError in the midst of writing.
    code = f"""
        import resource
        from pathlib import Path
        from test_cache import build
        from langevin.errors import UserError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            build(Path({str(tmp_path)!r}))
        except UserError as error:
            print(error)
    """
    printed = Code(__file__, tmp_path, code).printed()
    assert f"loader.cache_dir={tmp_path}: the image cache cannot be written" in printed
    assert caches(tmp_path) == []


def test_a_cache_dir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=re.escape(f"loader.cache_dir={tmp_path / 'file'}: ")):
        build(tmp_path / "file")


class Counted(ArrayImages):
    """Notes which images are decoded, and asks this process to stop at the first of the last chunk."""

    def open(self, index):
        decoded.append(index)
        if index == 128 and stopping:
            stopping.pop()()
        return super().open(index)


decoded, stopping = [], []


@pytest.mark.parametrize("kind", ["signal", "ctrl-c twice"])
def test_an_interrupted_build_is_continued_with_the_same_digest(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(interrupt, "_received", None)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})  # one thread: the chunks in their order
    whole = build(tmp_path / "whole").digest

    def stop():
        if kind != "signal":
            raise KeyboardInterrupt
        interrupt._received = "SIGTERM"

    assert build(tmp_path / "whole").enlarged == (0, ())
    stopping[:], decoded[:] = [stop], []
    with pytest.raises(interrupt.Interrupted if kind == "signal" else KeyboardInterrupt) as raised:
        build(tmp_path / "cache", lambda: SampleSet(Counted(ARRAY), LABELS, NAMES))
    if kind == "signal":
        assert re.fullmatch(r"by SIGTERM with (128|150) of 150 images of toy decoded", str(raised.value))
    (partial,) = caches(tmp_path / "cache")
    kept = [json.loads(line)[0] for line in (partial / "chunks").read_text().splitlines()]
    assert kept == ([0, 64, 128] if "150 of" in str(raised.value) else [0, 64])
    with open(partial / "images.npy", "r+b") as file:  # as a crash of the machine may leave what was not flushed
        file.seek(500)
        file.write(bytes(50))
    decoded.clear()
    interrupt._received = None
    cache = build(tmp_path / "cache", lambda: SampleSet(Counted(ARRAY), LABELS, NAMES))
    assert sorted(decoded) == [*range(64), *(() if 128 in kept else range(128, 150))]
    np.testing.assert_array_equal(cache.samples, ARRAY)
    assert cache.digest == whole
    assert sorted(path.name for path in cache.folder.iterdir()) == ["images.npy", "labels.npy", "meta.json"]


def test_who_waits_for_another_process_stops_on_a_signal(tmp_path, monkeypatch):
    build(tmp_path)
    (folder,) = caches(tmp_path)
    (folder / "meta.json").unlink()
    monkeypatch.setattr(interrupt, "_received", "SIGUSR1")
    lock = tmp_path / f"{folder.name}.lock"
    with FileLock(lock), pytest.raises(interrupt.Interrupted, match="by SIGUSR1 while another process decodes"):
        build(tmp_path, not_again)


def test_the_digest_is_of_what_is_stored(tmp_path, monkeypatch):
    """Not of where it comes from, nor of the threads that decode it."""
    one = build(tmp_path, fingerprint="1").digest
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(7)))
    assert build(tmp_path, fingerprint="2").digest == one
    pixel = ARRAY.copy()
    pixel[149, 5, 5, 2] ^= 1
    order = np.arange(150)[::-1]
    others = [
        SampleSet(ArrayImages(pixel), LABELS, NAMES),
        SampleSet(ArrayImages(ARRAY[order]), LABELS[order], NAMES),
        SampleSet(ArrayImages(ARRAY[:149]), LABELS[:149], NAMES),
        SampleSet(ArrayImages(ARRAY), np.roll(LABELS, 1), NAMES),
        SampleSet(ArrayImages(ARRAY), LABELS, ("a", "b", "c", "e")),
        SampleSet(ArrayImages(ARRAY)),
    ]
    digests = {build(tmp_path, others.pop, fingerprint=str(number)).digest for number in range(3, 9)}
    assert len(digests | {one}) == 7


@pytest.mark.parametrize("writable", [True, False])
def test_an_older_cache_is_given_its_digest(tmp_path, writable, monkeypatch):
    cache = build(tmp_path)
    path = cache.folder / "meta.json"
    meta = json.loads(path.read_text())
    assert meta.pop("digest") == cache.digest
    path.write_text(json.dumps(meta))
    if not writable:

        def refuse(*_):
            raise OSError(errno.EROFS, "read-only")

        monkeypatch.setattr("langevin.data.cache.write_json", refuse)
    assert build(tmp_path, not_again).digest == cache.digest
    assert json.loads(path.read_text()).get("digest") == (cache.digest if writable else None)


SLOW = """
    import sys, time
    from pathlib import Path
    from langevin.data.images import ArrayImages
    from langevin.data.source import SampleSet
    from test_cache import ARRAY, LABELS, NAMES, build

    class Slow(ArrayImages):
        def open(self, index):
            time.sleep({seconds})
            return super().open(index)

    def load():
        print("building", flush=True)
        return SampleSet(Slow(ARRAY), LABELS, NAMES)

    cache = build(Path({folder!r}), load)
    assert (cache.samples == ARRAY).all()
    print("opened", flush=True)
"""


def test_a_killed_build_leaves_no_cache_and_the_next_one_succeeds(tmp_path):
    process = Code(__file__, tmp_path, SLOW.format(seconds=0.02, folder=str(tmp_path))).process
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size for path in tmp_path.glob("*.building/chunks")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert [path.suffix for path in caches(tmp_path)] == [".building"]
    decoded.clear()
    np.testing.assert_array_equal(build(tmp_path, lambda: SampleSet(Counted(ARRAY), LABELS, NAMES)).samples, ARRAY)
    assert 0 < len(decoded) <= 150 - 22, "a chunk at least was there"
    assert len(caches(tmp_path)) == 1  # what the killed build left is gone


def test_processes_that_start_together_build_once(tmp_path):
    script = SLOW.format(seconds=0.005, folder=str(tmp_path))
    started = [Code(__file__, tmp_path, script, name) for name in "abc"]
    outputs = [each.printed().split() for each in started]
    assert sorted(outputs, key=len) == [["opened"], ["opened"], ["building", "opened"]]
    assert len(caches(tmp_path)) == 1


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path))
    assert default_cache_dir() == resolve_cache_dir(None) == tmp_path
    monkeypatch.delenv("LANGEVIN_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_cache_dir()) == "/home/someone/.cache/langevin"
    assert str(resolve_cache_dir("~/here")) == "/home/someone/here"
