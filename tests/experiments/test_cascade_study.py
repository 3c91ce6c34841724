"""The study of conditioning augmentation: what it samples, and from what."""

from types import SimpleNamespace

import numpy as np
from experiments.cascade import run
from helpers.digits import digits


def test_every_arm_is_sampled_as_it_was_trained():
    found = list(run.cells())
    assert len(set(found)) == len(found) == 23 * len(run.SEEDS)
    greatest = {"none": 0.0, "half": 0.5, "whole": 1.0}
    assert {cell.augmentation: cell.level for cell in sorted(found, key=lambda cell: cell.level)} == greatest
    assert all(0 < cell.level < 1 and cell.base != "real" for cell in found if cell.truncated)


def test_digits_of_the_data_are_of_every_class_in_turn():
    samples, labels = (array[:1500] for array in digits())
    real = run.spread(SimpleNamespace(samples=samples, labels=labels))
    place = {image.tobytes(): label for image, label in zip(samples, labels, strict=True)}
    assert [place[image.tobytes()] for image in real] == (np.arange(run.NUMBER) % 10).tolist()
    assert len({image.tobytes() for image in real}) == run.NUMBER
