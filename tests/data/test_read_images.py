import numpy as np
import pytest
from PIL import Image

from langevin.data.read_images import read_images
from langevin.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("where", ["images", "images.zip"])
def test_a_folder_or_zip_at_native_size(write, pixels, where):
    arrays = [pixels(seed, 6, 9) for seed in range(3)]
    path = write({f"{index}.png": array for index, array in enumerate(arrays)}, where)
    for _ in range(2):
        images, labels = read_images(path)
        np.testing.assert_array_equal(images, arrays)
        assert labels is None


def test_labels_and_grey(write, pixels):
    grey = pixels(0)[..., 0].copy()
    images, labels = read_images(write({"a/1.png": grey, "b/2.png": grey}))
    assert images.shape == (2, 10, 10, 1)
    np.testing.assert_array_equal(images[1, ..., 0], grey)
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("channels", [1, 3])
def test_npz(tmp_path, channels):
    array = np.random.default_rng(0).integers(0, 256, (4, 5, 6, channels), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", array)
    np.savez(tmp_path / "b.npz", array, np.array([3, 1, 2, 0], np.int32))
    images, labels = read_images(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(images, array)
    assert labels is None
    images, labels = read_images(str(tmp_path / "b.npz"))
    np.testing.assert_array_equal(images, array)
    assert labels.tolist() == [3, 1, 2, 0]
    assert labels.dtype == np.int64


IMAGES = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3), "sigma": np.zeros(3)}, "holds mu, sigma; it must hold arr_0"),
        ({}, "holds nothing"),
        ({"arr_0": IMAGES.astype(np.float32)}, "arr_0 is float32"),
        ({"arr_0": IMAGES.transpose(0, 3, 1, 2)}, r"shape \(2, 3, 4, 4\)"),
        ({"arr_0": IMAGES[0]}, r"shape \(4, 4, 3\)"),
        ({"arr_0": IMAGES[:0]}, r"shape \(0, 4, 4, 3\)"),
        ({"arr_0": np.array([{}], dtype=object)}, "cannot be read"),
        ({"arr_0": IMAGES, "arr_1": np.zeros(3, np.int64)}, "arr_1 is int64"),
        ({"arr_0": IMAGES, "arr_1": np.zeros(2)}, "arr_1 is float64"),
    ],
)
def test_foreign_npz(tmp_path, arrays, message):
    path = str(tmp_path / "x.npz")
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message) as error:
        read_images(path, option="reference")
    assert f"reference={path}" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_broken_npz(tmp_path, content):
    path = tmp_path / "x.npz"
    if content is None:
        np.savez(path, IMAGES)
        content = path.read_bytes()[:-30]
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"samples=.*cannot be read as an \.npz"):
        read_images(str(path))


def test_bad_folders(write, pixels, tmp_path):
    cases = {
        write(
            {"a.png": pixels(0, 8, 8), "b.png": pixels(1, 8, 9)}, "sizes"
        ): r"b\.png in .*9x8, the first image is 8x8",
        write({"a.png": pixels(0)[..., 0].copy(), "b.png": pixels(1)}, "colours"): r"b\.png in .*colour",
        write({"a.png": b"junk"}, "junk.zip"): r"a\.png in .*junk\.zip cannot be used",
        write({"a.txt": b"text"}, "text"): "reference=.*holds no image",
        str(tmp_path / "gone"): "reference=.*no such file or folder",
        str(tmp_path / "gone.npz"): "reference=.*no such file",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            read_images(path, option="reference")


def test_the_shared_test_images(shared):
    images, labels = read_images(str(shared("cifar10-test.zip")))
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert Image.fromarray(images[0]).size == (32, 32)
