import io
import os
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from langevin.data.archive import counted
from langevin.data.image_folder import ImageFolder
from langevin.data.module import DataModule
from langevin.data.summary import summary
from langevin.errors import UserError


def labels_of(path):
    image_set = ImageFolder(path, image_size=10).load("train")
    return None if image_set.labels is None else image_set.labels.tolist(), image_set.class_names


@pytest.fixture(params=["images", "images.zip"])
def either(request, write):
    """Writes the same files into a folder, then into a zip."""
    return lambda files: write(files, request.param)


def test_class_folders(either, pixels):
    path = either({"dog/1.png": pixels(0), "cat/2.png": pixels(1), "cat/deep/3.png": pixels(2), "notes.txt": b"hi"})
    assert labels_of(path) == ([0, 0, 1], ("cat", "dog"))


def test_a_file_costs_no_path_object(either):
    """A path takes longer than all else that is done for a file whenever a run starts."""
    source = ImageFolder(either({f"{number % 2}/{number}.jpg": b"x" for number in range(100)}), image_size=10)
    calls = []

    def count(frame, event, _):
        if event == "call" and frame.f_code.co_filename.endswith("pathlib.py"):
            calls.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        source.check()
        source.fingerprint("train")
    finally:
        sys.setprofile(None)
    assert len(calls) < 100, calls


@pytest.mark.parametrize("prefix", ["", "all/", "all/of/them/"])
def test_images_in_one_folder_are_unlabelled(either, pixels, prefix):
    assert labels_of(either({f"{prefix}a.png": pixels(0), f"{prefix}b.png": pixels(1)})) == (None, None)


def test_a_folder_around_the_class_folders_is_no_class(either, pixels):
    assert labels_of(either({"mine/cat/a.png": pixels(0), "mine/dog/b.png": pixels(1)})) == ([0, 1], ("cat", "dog"))


@pytest.mark.parametrize("prefix", ["", "mine/"])
def test_dataset_json_takes_precedence_over_folders(either, pixels, prefix):
    files = {f"{prefix}x/a.png": pixels(0), f"{prefix}x/b.png": pixels(1), f"{prefix}y/c.png": pixels(2)}
    labels = [["x/b.png", 0], ["x/a.png", 2], ["y/c.png", 1]]
    assert labels_of(either({**files, f"{prefix}dataset.json": {"labels": labels}})) == ([2, 0, 1], ("0", "1", "2"))


def test_dataset_json_takes_its_names_from_folders_that_agree(either, pixels):
    files = {"x/a.png": pixels(0), "y/b.png": pixels(1), "dataset.json": {"labels": [["x/a.png", 1], ["y/b.png", 0]]}}
    assert labels_of(either(files)) == ([1, 0], ("y", "x"))


def test_dataset_json_with_null_says_unlabelled(either, pixels):
    # The StyleGAN tool spreads unlabelled images over folders 00000, 00001, ...: they are no classes.
    files = {"00000/a.png": pixels(0), "00001/b.png": pixels(1), "dataset.json": {"labels": None}}
    assert labels_of(either(files)) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "cannot read dataset.json"),
        ({}, "cannot read dataset.json"),
        ({"labels": [["a.png"]]}, "cannot read dataset.json"),
        ({"labels": 3}, "cannot read dataset.json"),
        ({"labels": [["a.png", 0]]}, "gives no class to b.png"),
        ({"labels": [["a.png", 0], ["b.png", -1]]}, "class id -1"),
        ({"labels": [["a.png", 0], ["b.png", 0.5]]}, "class id 0.5"),
        ({"labels": [["a.png", None], ["b.png", 0]]}, "dataset.json gives a.png the class id null"),
        ({"labels": [["a.png", True], ["b.png", 0]]}, "dataset.json gives a.png the class id true"),
        ({"labels": [["a.png", [0.1] * 99], ["b.png", 0]]}, r"dataset.json gives a.png the class id \[0\.1.*\.\.\.,"),
        ({"labels": [["a.png", 0], ["b.png", 1], ["a.png", 2]]}, "gives a.png two classes, 0 and 2"),
        (b"[" * 100_000, "cannot read dataset.json"),
    ],
)
def test_bad_dataset_json(either, pixels, content, message):
    path = either({"a.png": pixels(0), "b.png": pixels(1), "dataset.json": content})
    with pytest.raises(UserError, match=message) as error:
        ImageFolder(path, image_size=10).check()
    assert f"data.path={path}" in str(error.value)


def test_class_ids_become_classes_without_a_gap(either, pixels):
    ids = [20230101, 7, 10**30, 7]
    files = {f"{i}.png": pixels(i) for i in range(4)} | {
        "dataset.json": {"labels": [[f"{i}.png", ids[i]] for i in range(4)]}
    }
    assert labels_of(either(files)) == ([1, 0, 2, 0], ("7", "20230101", str(10**30)))


def test_class_ids_of_folders_keep_the_folders_names(either, pixels):
    files = {"dog/a.png": pixels(0), "cat/b.png": pixels(1)}
    labels = {"labels": [["cat\\b.png", 9], ["./dog/a.png", 5], ["gone.png", 7]]}
    path = either(files | {"dataset.json": labels})
    assert labels_of(path) == ([1, 0], ("dog", "cat"))
    assert counted(ImageFolder(path, image_size=10).left_out()) == "1 unused label"


@pytest.mark.parametrize("folders", [("train", "test"), ("Train", "val"), ("training", "validation", "test")])
@pytest.mark.parametrize("prefix", ["", "mine/"])
def test_splits_are_no_classes(either, pixels, folders, prefix):
    path = either({f"{prefix}{folder}/{name}/1.png": pixels(0) for folder in folders for name in ("cat", "dog")})
    with pytest.raises(UserError, match="are splits, not classes") as error:
        ImageFolder(path, image_size=10).check()
    way = (
        f"unpack it and give the folder {prefix}{folders[0]}"
        if path.endswith("zip")
        else f"{path}/{prefix}{folders[0]}"
    )
    assert way in str(error.value)
    if not path.endswith("zip"):
        assert labels_of(way) == ([0, 1], ("cat", "dog"))


def test_folders_of_which_one_is_called_train_are_classes(either, pixels):
    assert labels_of(either({"bus/1.png": pixels(0), "train/1.png": pixels(1)})) == ([0, 1], ("bus", "train"))


def test_what_is_left_out_is_counted(either, pixels):
    files = {f"cat/{name}": b"x" for name in ("1.heic", "2.HEIC", "notes.txt", "LICENSE")}
    source = ImageFolder(either({"cat/a.png": pixels(0), "dog/b.gif": pixels(1), **files}), image_size=10)
    assert counted(source.left_out()) == "2 .heic files, 1 .txt file, 1 suffixless file"


def test_links_that_lead_nowhere(write, pixels, tmp_path):
    path = write({"cat/a.png": pixels(0), "dog/b.png": pixels(1)})
    (tmp_path / "images" / "cat" / "c.png").symlink_to("gone.png")
    source = ImageFolder(path, image_size=10)
    source.check()
    with pytest.raises(FileNotFoundError):
        source.load("train").lazy.open(1)
    (tmp_path / "images" / "eel").symlink_to("gone")
    with pytest.raises(UserError, match="the link eel leads nowhere"):
        ImageFolder(path, image_size=10).check()


@pytest.mark.parametrize("background", [(0, 0), (0, 0, 256), (-1, 0, 0)])
def test_a_background_that_is_no_colour(background):
    with pytest.raises(UserError, match=r"^background is \["):
        ImageFolder("x", image_size=8, background=background)


def test_how_images_become_squares(write, pixels, tmp_path, monkeypatch):
    monkeypatch.setenv("LANGEVIN_CACHE", str(tmp_path / "cache"))
    image = pixels(0, 8, 4)
    path = write({"a.png": image, "b.png": pixels(1, 9, 9)})

    def made(resize, **options):
        data = DataModule(ImageFolder(path, image_size=8, resize=resize, **options), batch_size=1)
        data.prepare_data()
        return data

    cropped, padded, stretched = (made(resize).train_set for resize in ("crop", "pad", "stretch"))
    whole = Image.fromarray(image)
    middle = Image.fromarray(image[2:6]).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(cropped.samples[0], np.asarray(middle))
    np.testing.assert_array_equal(padded.samples[0, :, 2:6], image)
    assert (padded.samples[0, :, :2] == 255).all()
    assert (made("pad", background=(1, 2, 3)).train_set.samples[0, 0, 0] == [1, 2, 3]).all()
    np.testing.assert_array_equal(stretched.samples[0], np.asarray(whole.resize((8, 8), Image.Resampling.LANCZOS)))
    assert len({each.digest for each in (cropped, padded, stretched)}) == 3
    assert summary(made("crop")) == f"data: 2 images; enlarged to 8x8: 1 image (a.png in {path})"
    assert summary(made("pad")) == "data: 2 images"


def test_the_options_of_decoding_choose_the_cache(write, pixels):
    path = write({"a.png": pixels(0)})
    options = ({}, {"background": (0, 0, 0)}, {"skip_broken": True})
    assert len({ImageFolder(path, image_size=8, **each).fingerprint("train") for each in options}) == 3


def test_formats_at_any_depth_and_in_any_case(either, pixels):
    array = pixels(0, 64, 64)
    files = {
        f"a/b/c/{suffix}.{suffix}": array
        for suffix in ("png", "PNG", "jpg", "JPEG", "webp", "bmp", "gif", "tif", "TIFF")
    }
    lazy_images = ImageFolder(either(files), image_size=10).load("train").lazy
    assert len(lazy_images) == 9
    for index in range(9):
        difference = np.asarray(lazy_images.open(index).convert("RGB")).astype(int) - array
        exact = lazy_images.files[index].lower().endswith(("png", "bmp", "tif", "tiff"))
        assert np.abs(difference).mean() < (0.1 if exact else 12)


def test_hidden_files_are_no_images(either, pixels):
    files = {"a.png": pixels(0), ".b.png": pixels(1), "__MACOSX/._a.png": b"junk", ".trash/c.png": pixels(1)}
    assert len(ImageFolder(either(files), image_size=10).load("train").lazy) == 1


def test_folder_zip_and_tar_are_alike(write, pixels, tmp_path):
    files = {"cat/a.png": pixels(0), "dog/b.png": pixels(1)}
    folder = write(files)
    tar = str(tmp_path / "images.tar")
    with tarfile.open(tar, "w") as archive:
        archive.add(folder, ".")
    for path in (folder, write(files, "images.zip"), tar):
        assert labels_of(path) == ([0, 1], ("cat", "dog"))
        lazy_images = ImageFolder(path, image_size=10).load("train").lazy
        np.testing.assert_array_equal(np.asarray(lazy_images.open(1)), pixels(1))


def test_linked_class_folders_are_followed(write, pixels, tmp_path):
    write({"a.png": pixels(0)}, "elsewhere")
    path = write({"cat/b.png": pixels(1)})
    (tmp_path / "images" / "dog").symlink_to(tmp_path / "elsewhere")
    assert labels_of(path) == ([0, 1], ("cat", "dog"))


def test_fingerprint_follows_content_not_place(write, pixels):
    files = {"a.png": pixels(0), "b.png": pixels(1)}

    def fingerprint(path):
        return ImageFolder(path, image_size=10).fingerprint("train")

    one, same, other = (
        write(f, n) for f, n in ((files, "1.zip"), (files, "2.zip"), (files | {"b.png": pixels(9)}, "3.zip"))
    )
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    folder = write(files)
    before = fingerprint(folder)
    write({"notes.txt": b"x"})
    assert fingerprint(folder) == before
    os.utime(f"{folder}/a.png", ns=(1, 1))
    assert fingerprint(folder) != before
    before = fingerprint(folder)
    write({"dataset.json": {"labels": None}})
    assert fingerprint(folder) != before


def test_the_constructor_touches_no_disk():
    source = ImageFolder("/nowhere", image_size=64)
    assert (source.image_size, source.channels, source.flip) == (64, 3, True)


def test_bad_paths(write, pixels, tmp_path):
    (tmp_path / "empty").mkdir()
    whole = write({"a.png": pixels(0), "b.png": pixels(1)}, "images.zip")
    with open(whole, "rb") as file:
        cut = write({"cut.zip": file.read()[:-40]}, "") + "/cut.zip"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(whole, "a.png")
    cases = {
        None: "data.path=FOLDER_OR_ZIP",
        str(tmp_path / "nothing"): "no such file or folder",
        str(tmp_path / "empty"): "holds no image",
        "": "has no value; give a path, or . for the current folder",
        write({"notes.txt": b"x"}, "text.zip"): r"holds no image .*; it holds 1 \.txt file$",
        write({f"{each}.{each}": b"x" for each in "cdefghi"}, "many"): r"; it holds( 1 \.\w file,){5} and others$",
        write({"a.png": pixels(0)}, "single") + "/a.png": "neither a folder nor",
        cut: "neither a folder nor a complete zip",
        str(tmp_path / "a.tar.gz"): "must not be compressed",
        write({"a.png": pixels(0), "cat/b.png": pixels(1)}, "mixed"): "but a.png does not",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            ImageFolder(path, image_size=8).check()
        assert f"data.path={'null' if path is None else path}" in str(error.value)


def test_bad_sizes_and_channels():
    with pytest.raises(UserError, match=r"^channels is 4; allowed: 1"):
        ImageFolder("x", image_size=8, channels=4)
    with pytest.raises(UserError, match=r"^image_size is 0; allowed: at least 1"):
        ImageFolder("x", image_size=0)


def test_the_shared_cifar_zip(shared):
    path = str(shared("cifar10-test.zip"))
    image_set = ImageFolder(path, image_size=32).load("train")
    assert len(image_set.lazy) == 10_000
    assert image_set.class_names[:2] == ("airplane", "automobile")
    np.testing.assert_array_equal(np.bincount(image_set.labels), [1000] * 10)
    with zipfile.ZipFile(path) as archive:
        want = Image.open(io.BytesIO(archive.read("cat/0007.jpg")))
    index = image_set.lazy.files.index("cat/0007.jpg")
    assert image_set.class_names[image_set.labels[index]] == "cat"
    np.testing.assert_array_equal(np.asarray(image_set.lazy.open(index)), np.asarray(want))
