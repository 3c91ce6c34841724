import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from langevin.data import read_images as read_images_module
from langevin.data.read_images import read_images, read_record
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
        write({"a.png": b"junk"}, "junk.zip"): r"a\.png in .*junk\.zip cannot be used",
        write({"a.txt": b"text"}, "text"): "reference=.*holds no image",
        str(tmp_path / "gone"): "reference=.*no such file or folder",
        str(tmp_path / "gone.npz"): "reference=.*no such file",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            read_images(path, option="reference")


@pytest.mark.parametrize("grey", [0, 1, 2])
def test_in_colour_if_any_image_is(write, pixels, grey):
    arrays = [pixels(seed)[..., 0].copy() if seed == grey else pixels(seed) for seed in range(3)]
    path = write({f"{index}.png": array for index, array in enumerate(arrays)})
    for _ in range(2):
        images, _ = read_images(path)
        assert images.shape == (3, 10, 10, 3)
        np.testing.assert_array_equal(images[grey], arrays[grey][..., None].repeat(3, -1))


def test_a_cache_of_grey_images_is_not_looked_through_again(write, pixels, monkeypatch):
    path = write({f"{index}.png": pixels(index)[..., 0].copy() for index in range(3)})
    assert read_images(path)[0].shape == (3, 10, 10, 1)
    monkeypatch.setattr(read_images_module, "_any_in_color", lambda lazy_images: pytest.fail("read a second time"))
    assert read_images(path)[0].shape == (3, 10, 10, 1)


def test_all_broken_images_are_named(write, pixels):
    path = write({"0.png": b"junk", "1.png": pixels(0), "2.png": b"", "3.png": pixels(0, 4, 4)})
    with pytest.raises(UserError, match=r"3 of 4 images cannot be used; replace or remove them:") as error:
        read_images(path)
    for name in ("0.png", "2.png", "3.png in"):
        assert f"\n  {name}" in str(error.value)
    with pytest.raises(UserError, match="2 of 2 images cannot be used"):
        read_images(write({"a.png": b"junk", "b.png": b""}, "junk"))


def test_labels_of_a_dataset_json_stay_the_ids(write, pixels):
    files = {"a.png": pixels(0), "b.png": pixels(1), "dataset.json": {"labels": [["a.png", 9], ["b.png", 5]]}}
    assert read_images(write(files))[1].tolist() == [9, 5]
    files["dataset.json"] = {"labels": [["a.png", 10**30], ["b.png", 5]]}
    with pytest.raises(UserError, match=r"class id 10+; allowed: 0 to 2147483647"):
        read_images(write(files, "large"))


@pytest.mark.parametrize("labels", [[0, -7], [0, 10**10]])
def test_labels_of_an_npz_that_are_none(tmp_path, labels):
    np.savez(tmp_path / "x.npz", IMAGES, np.array(labels))
    with pytest.raises(UserError, match=rf"arr_1 has the label {labels[1]}; allowed"):
        read_images(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("lie", ["in the header", "in the directory too"])
def test_an_npz_that_claims_more_than_it_holds(tmp_path, save, lie):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 32, 32, 3)})
    path = tmp_path / "x.npz"
    save(path, np.zeros((100, 32, 32, 3), np.uint8))  # one that is compressed 1000 times is no lie
    assert read_images(str(path))[0].shape == (100, 32, 32, 3)
    method = zipfile.ZIP_STORED if save is np.savez else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("arr_0.npy", header.getvalue() + bytes(1000))
        if lie == "in the directory too":
            file.getinfo("arr_0.npy").file_size = len(header.getvalue()) + 10**9 * 32 * 32 * 3
    tracemalloc.start()
    with pytest.raises(UserError, match=r"samples=.*cannot be read as an \.npz file"):
        read_images(str(path))
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_an_npz_that_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(UserError, match="is not a regular file"):
        read_images(str(tmp_path / "x.npz"))


@pytest.mark.parametrize("record", ["{", "3", '{"model": 1}'])
def test_a_record_that_is_none(tmp_path, record):
    path = str(tmp_path / "x.npz")
    np.savez(path, IMAGES, record=np.array(record))
    with pytest.raises(UserError, match=r"samples=.*its record"):
        read_record(path)
    assert read_images(path)[1] is None


@pytest.mark.slow
def test_the_shared_test_images(shared):
    images, labels = read_images(str(shared("cifar10-test.zip")))
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10
    assert Image.fromarray(images[0]).size == (32, 32)
