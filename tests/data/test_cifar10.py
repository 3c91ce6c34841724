"""The official layout, in miniature: torchvision's checksums are replaced by those of the files made here."""

import functools
import hashlib
import pickle
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision import datasets

from langevin.data.cifar10 import CIFAR10
from langevin.data.module import DataModule
from langevin.data.summary import summary
from langevin.errors import UserError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A folder holding cifar-10-batches-py with 5 x 4 training and 4 test images, and the .tar.gz of it."""
    root = tmp_path / "official"
    batches = root / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def store(name, content):
        data = pickle.dumps(content)
        (batches / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch():
        return {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": rng.integers(0, 10, 4).tolist()}

    train = [store(f"data_batch_{i}", batch()) for i in range(1, 6)]
    test = [store("test_batch", batch())]
    meta = store("batches.meta", {"label_names": NAMES})
    archive = root / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, batches.name)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", test)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]})
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=root))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
    yield root
    server.shutdown()
    server.server_close()


def prepared(**options):
    module = DataModule(CIFAR10(**options), 4)
    module.prepare_data()
    return module


def sources(root):
    return {
        "parent": {"path": str(root)},
        "folder": {"path": str(root / "cifar-10-batches-py")},
        "archive": {"path": str(root / "cifar-10-python.tar.gz")},
        "download": {},
    }


@pytest.mark.parametrize("kind", ["parent", "folder", "archive", "download"])
def test_the_official_release(official, kind):
    module = prepared(**sources(official)[kind])
    for cache, train in ((module.train_set, True), (module.test_set, False)):
        want = datasets.CIFAR10(str(official), train=train)
        np.testing.assert_array_equal(cache.samples, want.data)
        np.testing.assert_array_equal(cache.labels, want.targets)
    assert module.class_names == tuple(NAMES)
    assert summary(module) is None


def test_all_ways_to_the_official_release_share_a_cache(official, monkeypatch):
    prepared()
    monkeypatch.setattr(CIFAR10, "load", lambda self, split: pytest.fail("decoded again"))
    for options in sources(official).values():
        prepared(**options)


def test_without_network_the_message_says_what_to_do(official, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://no-such-server.invalid/cifar.tar.gz")
    with pytest.raises(UserError) as error:
        prepared()
    for part in ("data.path=", "no-such-server.invalid", str(tmp_path / "cache" / "cifar10"), "cifar-10-python.tar.gz"):
        assert part in str(error.value)


def test_a_download_of_something_else_is_refused(official):
    (official / "cifar-10-python.tar.gz").write_bytes(b"<html>gone</html>")
    with pytest.raises(UserError, match="could not be downloaded"):
        prepared()


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_damaged_official_files(official, kind):
    place = official / ("cifar-10-batches-py/data_batch_3" if kind == "folder" else "cifar-10-python.tar.gz")
    place.write_bytes(place.read_bytes()[:-7])
    path = sources(official)[kind]["path"]
    with pytest.raises(UserError, match="damaged") as error:
        prepared(path=path)
    assert f"data.path={path}" in str(error.value)


def test_a_renamed_official_folder(official):
    (official / "cifar-10-batches-py").rename(official / "mine")
    with pytest.raises(UserError, match="must be called cifar-10-batches-py"):
        prepared(path=str(official / "mine"))


@pytest.mark.parametrize("name", ["gone.tar.gz", "gone"])
def test_missing_paths(tmp_path, name):
    with pytest.raises(UserError, match=r"data\.path=.*there is no such file"):
        CIFAR10(path=str(tmp_path / name)).check()


def test_image_files_with_and_without_test_images(write, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    files = {"cat/a.png": pixels(0, 32, 32), "dog/b.png": pixels(1, 32, 32)}
    train, test = write(files, "train.zip"), write(files, "test")
    assert prepared(path=train).test_set is None
    module = prepared(path=train, test_path=test)
    np.testing.assert_array_equal(module.test_set.samples, module.train_set.samples)
    np.testing.assert_array_equal(module.train_set.samples[1], pixels(1, 32, 32))


def test_options_and_what_is_left_out_of_image_files(write, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    clear = np.dstack([pixels(0, 32, 32), np.zeros((32, 32), np.uint8)])
    files = {"cat/a.png": clear, "cat/b.png": b"junk", "dog/c.png": pixels(1, 32, 32), "dog/d.heic": b"x"}
    paths = {"path": write(files), "test_path": write(files, "test.zip")}
    with pytest.raises(UserError, match=r"cat/b\.png in .*data\.skip_broken=true"):
        prepared(**paths)
    module = prepared(**paths, skip_broken=True, background=(1, 2, 3))
    for cache in (module.train_set, module.test_set):
        np.testing.assert_array_equal(cache.samples[0], np.broadcast_to([1, 2, 3], (32, 32, 3)))
        assert cache.labels.tolist() == [0, 1]
    assert summary(module) == (
        "data: 2 images and 2 test images in 2 classes; left out: 2 .heic files, 2 broken images "
        f"(cat/b.png in {paths['path']}, cat/b.png in {paths['test_path']})"
    )


def test_test_images_of_other_classes(write, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    train = write({"cat/a.png": pixels(0), "dog/b.png": pixels(1)}, "train.zip")
    test = write({"cat/a.png": pixels(0), "eel/b.png": pixels(1)}, "test.zip")
    with pytest.raises(UserError, match=r"classes cat, eel .*cat, dog"):
        prepared(path=train, test_path=test)
    with pytest.raises(UserError, match=r"data\.test_path=/gone"):
        prepared(path=train, test_path="/gone")


def test_test_path_beside_the_official_release(official):
    with pytest.raises(UserError, match=r"data\.test_path=x: the official release brings its own"):
        CIFAR10(test_path="x").check()
