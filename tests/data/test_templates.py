"""Captions by templates say what is in the image: the class, and the third of the brightness that it lies in."""

import itertools

import numpy as np
import pytest

from langevin.data.digits import Digits
from langevin.data.module import DataModule
from langevin.data.source import Source
from langevin.data.stanford_cars import StanfordCars
from langevin.data.summary import summary
from langevin.data.templates import BRIGHTNESS, Templates
from langevin.data.toy import Toy
from langevin.errors import UserError

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture
def opened(tmp_path):
    def make(**options):
        module = DataModule(Digits(), 50, cache_dir=str(tmp_path), captions=Templates(**options))
        module.prepare_data()
        return module

    return make


def test_digits_are_captioned_by_word_and_by_thirds_of_the_training_brightness(opened):
    module = opened()
    means = module.train_set.samples.reshape(1500, -1).mean(1)
    limits = np.sort(means)[[499, 999]]
    for samples in (module.train_set, module.test_set):
        for index, image in enumerate(samples.samples):
            digit, third = WORDS[samples.labels[index]], BRIGHTNESS[np.sum(image.mean() > limits)]
            article = "an" if digit == "eight" else "a"
            expected = [f"{article} {digit}", f"a {third} {digit}", f"an image of {article} {digit}"]
            assert samples.captions.of(index) == [*expected, f"a {third} image of {article} {digit}"]
    assert set(module.spec.vocabulary) == {*WORDS, *BRIGHTNESS, "a", "an", "image", "of"}
    assert (
        summary(module) == "data: 1,500 images and 297 test images in 10 classes, 6,000 captions (80 of them distinct)"
    )


def test_held_out_pairs_are_not_trained_on_but_stay_in_the_data(opened):
    module = opened(held_out=[["seven", "bright"], ["Zero"]])
    captions, labels = module.train_set.captions, module.train_set.labels
    held_out = {
        index
        for index in range(1500)
        if labels[index] == 0 or (labels[index] == 7 and "a bright seven" in captions.of(index))
    }
    assert len({labels[index] for index in held_out}) == 2
    assert module.number == 1500 - len(held_out)
    assert len(module.train_set) == 1500
    number = 3 * module.number // 50
    seen = np.concatenate([batch["index"] for batch in itertools.islice(module.train_dataloader(), number)])
    assert set(seen[: module.number].tolist()) == set(range(1500)) - held_out
    assert not held_out.intersection(seen.tolist())
    assert len(next(iter(module.val_dataloader()))["label"]) == 50
    assert f"; {len(held_out)} images held out of training" in summary(module)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (
            [["sevn", "bright"]],
            "captions.held_out: no training caption has sevn and bright together; its words are ",
        ),
        ([["a"]], "captions.held_out: no sample is left to be trained on"),
        ([["a"], []], "held_out has an empty group"),
    ],
)
def test_pairs_that_cannot_be_held_out(opened, held_out, message):
    with pytest.raises(UserError, match=message):
        opened(held_out=held_out)


def test_what_cannot_be_described(tmp_path, write, pixels):
    from langevin.data.captioned import Captioned
    from langevin.data.image_folder import ImageFolder

    with pytest.raises(UserError, match="this data has its own"):
        Templates().check(Captioned(None, 8))
    with pytest.raises(UserError, match=r"samples are of shape \(2,\)"):
        Templates().check(Toy("moons", 10))
    Templates().check(Digits())
    folder = ImageFolder(write({"a.png": pixels(0)}), 8)
    with pytest.raises(UserError, match="captions: are written of the samples' classes"):
        DataModule(folder, 1, cache_dir=str(tmp_path / "cache"), captions=Templates()).prepare_data()


@pytest.mark.parametrize(
    ("name", "phrases"),
    [
        ("AM General Hummer SUV 2000", ("AM General SUV", "SUV", "AM General car", "AM General Hummer SUV")),
        ("Audi R8 Coupe 2012", ("Audi coupe", "coupe", "Audi car", "Audi R8 Coupe")),
        ("Ram C-V Cargo Van Minivan 2012", ("Ram minivan", "minivan", "Ram car", "Ram C-V Cargo Van Minivan")),
        ("Ford F-150 Regular Cab 2012", ("Ford pickup truck", "pickup truck", "Ford car", "Ford F-150 Regular Cab")),
        ("Acura TL Type-S 2008", ("Acura car", "car", "Acura TL Type-S")),
        ("BMW 1 Series", ("BMW car", "car", "BMW 1 Series")),
    ],
)
def test_cars_are_called_by_make_and_body(name, phrases):
    assert StanfordCars(None).phrases(name) == phrases


def test_other_classes_are_called_by_their_names():
    assert Source.phrases(Digits(), "sea_lion") == ("sea lion",)
    (captions,) = Templates().write(np.zeros((1, 2, 2, 1), np.uint8), np.array([0]), [("SUV",)], np.ones((3, 2, 2, 1)))
    assert captions == ["an SUV", "a dark SUV", "an image of an SUV", "a dark image of an SUV"]
