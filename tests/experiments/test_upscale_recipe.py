"""The recipe of super-resolution, shortened, and what is measured of it."""

import numpy as np
import pytest
from experiments.upscale import measure
from helpers.commands import call
from helpers.digits import digits


def test_what_is_measured():
    images, labels = (array[1500:] for array in digits())
    small = measure.small_of(images)
    repeated = small.repeat(2, axis=1).repeat(2, axis=2)
    assert measure.consistency(repeated, small) == 0
    assert measure.consistency(np.full_like(images, 255), np.full_like(small, 255 - 51)) == pytest.approx(3.2)
    assert measure.consistency(images, small) < 0.02, "but for rounding"
    assert measure.bilinear(small)[:, 0, 0].tolist() == small[:, 0, 0].tolist(), "corners stay"
    assert 0.94 < measure.accuracy(images, labels) < 0.97


@pytest.mark.slow
def test_digits_are_enlarged(tmp_path):
    """Three fifths of the recipe's training; `make recipes` trains it in full."""
    short = ("experiment=digits_upscale", "trainer.max_steps=300", "callbacks=[checkpoint]")
    trained = call("train", *short, f"output_dir={tmp_path}", "name=run", "trainer.accelerator=cpu")
    assert trained.status == 0, trained.err
    _, values = measure.measured(tmp_path / "run", steps=10)
    model, plain = values["model"], values["bilinear"]
    assert model["consistency"] < 0.5, values
    assert model["accuracy"] > plain["accuracy"] + 0.1, values
    assert model["psnr"] > plain["psnr"] + 3, values
