"""The split of the cars for their study, and what is measured of them."""

import numpy as np
import pytest
from experiments.cars import held_out, measure
from PIL import Image
from scipy.io import savemat

from langevin.data.stanford_cars import StanfordCars


@pytest.fixture
def cars():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)


def test_the_last_images_are_held_out(tmp_path, cars):
    root = tmp_path / "stanford_cars"
    for folder in ("cars_train", "devkit"):
        (root / folder).mkdir(parents=True)
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    annotations = np.zeros((1, 3), [(field, object) for field in fields])
    for index, image in enumerate(cars):
        annotations[0, index] = (1, 1, 40, 40, 1 + index % 2, f"{index}.png")
        Image.fromarray(image).save(root / "cars_train" / f"{index}.png")
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": annotations})
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([["A", "B"]], dtype=object)})

    assert held_out.split(root, tmp_path / "split", 1) == (2, 1)
    source = StanfordCars(str(tmp_path / "split"), image_size=40)
    assert source.splits() == ("train", "test")
    assert source.load("train").labels.tolist() == [0, 1]
    assert source.load("test").labels.tolist() == [0]
    assert len(list((tmp_path / "split" / "cars_train").iterdir())) == 2


def test_what_is_measured(cars):
    small = measure.small_of(cars)
    assert small[0, 0, 0].tolist() == cars[0, :4, :4].mean((0, 1)).round().tolist()
    assert measure.consistency(small.repeat(4, axis=1).repeat(4, axis=2), small) == 0
    filled = measure.filled(cars)
    assert (filled[:, measure.BOX, measure.BOX] == filled[:, 10:11, 10:11]).all()
    known = np.ones((40, 40), bool)
    known[10:30, 10:30] = False
    assert (filled[:, known] == cars[:, known]).all()
    assert filled[0, 20, 20].tolist() == cars[0, known].mean(0).round().tolist()
    assert measure.correlation(cars, cars) == pytest.approx(1)
    assert measure.correlation(cars, 255 - cars) == pytest.approx(1, abs=0.01), "edges have no sign"
    assert abs(measure.correlation(cars, np.roll(cars, 1, axis=0))) < 0.1
