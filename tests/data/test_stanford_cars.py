import io
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from langevin.data.module import DataModule
from langevin.data.stanford_cars import StanfordCars
from langevin.errors import UserError

FIELDS = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]


def save_annotations(path, rows):
    annotations = np.zeros((1, len(rows)), [(field, object) for field in FIELDS])
    for index, row in enumerate(rows):
        annotations[0, index] = row
    savemat(path, {"annotations": annotations})


@pytest.fixture
def cars(tmp_path, pixels):
    """The official layout with two training cars of 3 classes and one test car; boxes count from 1."""
    root = tmp_path / "disk" / "stanford_cars"
    for folder in ("cars_train", "cars_test", "devkit"):
        (root / folder).mkdir(parents=True)
    for place, seed in (("cars_train/00001", 1), ("cars_train/00002", 2), ("cars_test/00001", 3)):
        Image.fromarray(pixels(seed, 30, 40)).save(root / f"{place}.jpg", quality=95)
    train = [(5, 3, 24, 22, 3, "00001.jpg"), (1, 1, 40, 30, 1, "00002.jpg")]
    save_annotations(root / "devkit/cars_train_annos.mat", train)
    save_annotations(root / "cars_test_annos_withlabels.mat", [(1, 1, 30, 30, 2, "00001.jpg")])
    savemat(root / "devkit/cars_meta.mat", {"class_names": np.array([["A", "B", "C"]], dtype=object)})
    return root


def prepared(path, tmp_path, **options):
    module = DataModule(StanfordCars(str(path), **options), 4, cache_dir=str(tmp_path / "cache"))
    module.prepare_data()
    return module


def test_boxes_classes_and_both_splits(cars, tmp_path):
    module = prepared(cars, tmp_path, image_size=20)
    assert module.class_names == ("A", "B", "C")
    assert module.train_set.labels.tolist() == [2, 0]
    assert module.test_set.labels.tolist() == [1]
    # The box (5, 3)-(24, 22), from 1 and inclusive, is 20 pixels wide and high: no resampling.
    stored = np.asarray(Image.open(cars / "cars_train/00001.jpg"))
    np.testing.assert_array_equal(module.train_set.samples[0], stored[2:22, 4:24])


def test_without_crop_the_centre_is_taken(cars, tmp_path):
    module = prepared(cars, tmp_path, image_size=30, crop=False)
    stored = np.asarray(Image.open(cars / "cars_train/00001.jpg"))
    np.testing.assert_array_equal(module.train_set.samples[0], stored[:, 5:35])


def test_crop_and_size_have_their_own_caches(cars, tmp_path):
    options = [{"image_size": size, "crop": crop} for size in (20, 30) for crop in (True, False)]
    assert len({prepared(cars, tmp_path, **option).train_set.folder for option in options}) == 4


def test_folder_parent_and_tar_are_alike(cars, tmp_path):
    with tarfile.open(tmp_path / "cars.tar", "w") as tar:
        tar.add(cars, "stanford_cars")
    modules = [prepared(path, tmp_path, image_size=16) for path in (cars, cars.parent, tmp_path / "cars.tar")]
    for module in modules:
        np.testing.assert_array_equal(module.train_set.samples, modules[0].train_set.samples)
        assert len(module.test_set) == 1


def test_without_test_annotations_there_is_no_test_split(cars):
    shutil.move(cars / "cars_test_annos_withlabels.mat", cars / "devkit")
    assert StanfordCars(str(cars)).splits() == ("train", "test")
    (cars / "devkit/cars_test_annos_withlabels.mat").unlink()
    assert StanfordCars(str(cars)).splits() == ("train",)


def test_both_splits_may_be_trained_on(cars, tmp_path):
    separate, both = prepared(cars, tmp_path), prepared(cars, tmp_path, train_on_test=True)
    assert StanfordCars(str(cars), train_on_test=True).splits() == ("train",)
    assert both.test_set is None
    assert both.train_set.labels.tolist() == [2, 0, 1]
    expected = np.concatenate([separate.train_set.samples, separate.test_set.samples])
    np.testing.assert_array_equal(both.train_set.samples, expected)


def test_both_splits_must_be_there_to_be_trained_on(cars, tmp_path):
    (cars / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"data\.train_on_test=true: .* has no test images, or no cars_test_annos"):
        prepared(cars, tmp_path, train_on_test=True)


def test_without_test_images_there_is_no_test_split(cars):
    shutil.rmtree(cars / "cars_test")
    assert StanfordCars(str(cars)).splits() == ("train",)


def test_bad_paths(cars, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"data\.path=null: the official download .* no longer exists"):
        StanfordCars(None).check()
    with pytest.raises(UserError, match="no such file or folder"):
        StanfordCars(str(tmp_path / "gone")).check()
    with pytest.raises(UserError, match=r"laid out as the official release"):
        StanfordCars(str(tmp_path / "empty")).check()
    shutil.rmtree(cars / "cars_train")
    with pytest.raises(UserError, match="no image in cars_train/"):
        StanfordCars(str(cars)).check()


def test_a_missing_image_and_broken_annotations_are_named(cars):
    (cars / "cars_train/00002.jpg").unlink()
    with pytest.raises(UserError, match=r"names cars_train/00002\.jpg, which is not there"):
        StanfordCars(str(cars)).load("train")
    save_annotations(cars / "devkit/cars_train_annos.mat", [(1, 1, 9, 9, 4, "00001.jpg")])
    with pytest.raises(UserError, match=r"classes outside of 1\.\.3"):
        StanfordCars(str(cars)).load("train")
    save_annotations(cars / "devkit/cars_train_annos.mat", [(1, 1, 9, 9, 1, "00001.jpg"), (1, 1, 9, 9, 2, "00001.jpg")])
    with pytest.raises(UserError, match=r"names cars_train/00001\.jpg twice"):
        StanfordCars(str(cars)).load("train")
    save_annotations(cars / "devkit/cars_train_annos.mat", [("left", 1, 9, 9, 1, "00001.jpg")])
    with pytest.raises(UserError, match=r"cars_train_annos\.mat has a box or class that is not a number"):
        StanfordCars(str(cars)).load("train")
    savemat(cars / "devkit/cars_train_annos.mat", {"annotations": np.zeros(0)})
    with pytest.raises(UserError, match="no files, classes and boxes"):
        StanfordCars(str(cars)).load("train")
    savemat(cars / "devkit/cars_train_annos.mat", {"annotations": np.zeros(3)})
    with pytest.raises(UserError, match="no files, classes and boxes"):
        StanfordCars(str(cars)).load("train")
    (cars / "devkit/cars_train_annos.mat").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"cannot read annotations from devkit/cars_train_annos\.mat"):
        StanfordCars(str(cars)).load("train")


def test_the_shared_tar(shared):
    path = shared("stanford_cars-80px.tar")
    source = StanfordCars(str(path))
    source.check()
    assert source.splits() == ("train",)
    cars = source.load("train")
    assert len(cars.lazy) == 8144
    assert len(cars.class_names) == 196
    assert set(cars.labels) == set(range(196))
    with tarfile.open(path) as tar:

        def read(name):
            return io.BytesIO(tar.extractfile(f"stanford_cars/{name}").read())

        row = loadmat(read("devkit/cars_train_annos.mat"))["annotations"][0, 41]
        image = Image.open(read(f"cars_train/{row['fname'].item()}"))
    np.testing.assert_array_equal(np.asarray(cars.lazy.open(41)), np.asarray(image))
    assert cars.labels[41] == row["class"].item() - 1
