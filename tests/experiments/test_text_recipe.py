"""The recipe of text, shortened, and what is measured of it."""

import numpy as np
import pytest
from experiments.text import measure
from helpers.commands import call
from helpers.digits import digits

import langevin


def test_what_is_measured():
    images, labels = digits()
    judge = measure.Judge()
    assert 0.94 < (judge.digits(images[1500:]) == labels[1500:]).mean() < 0.97
    assert np.bincount(judge.brightness(images[:1500])).tolist() == pytest.approx([500] * 3, abs=10)
    assert judge.brightness(np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), 255)])).tolist() == [0, 2]
    right = {"digits": 0.8, "brightness": 0.8}
    values = {"a three, ...": {"digits": 0.95}, "held out: a": right, "all other pairs": {"digits": 0.0}}
    assert measure.below(values) == []
    assert measure.below({**values, "held out: b": right | {"brightness": 0.79}}) == ["held out: b: brightness"]
    assert measure.below({"a three, ...": {"digits": 0.94}}) == ["a three, ...: digits"]


@pytest.mark.slow
def test_digits_follow_their_captions(tmp_path):
    """A fifth of the recipe's training; `make recipes` trains it in full."""
    short = ("experiment=digits_text", "trainer.max_steps=300", "callbacks=[checkpoint]", "metrics=[]")
    trained = call("train", *short, f"output_dir={tmp_path}", "name=run", "trainer.accelerator=cpu")
    assert trained.status == 0, trained.err
    _, values = measure.measured(langevin.load(tmp_path / "run"), 10, steps=10)
    assert values["a three, ..."]["digits"] > 0.7, values
    assert values["all other pairs"]["digits"] > 0.7, values
    assert values["all other pairs"]["brightness"] > 0.6, values
