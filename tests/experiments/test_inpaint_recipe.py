"""The recipe of inpainting, shortened, on held-out digits of which the middle is unknown."""

import json

import numpy as np
import pytest
from helpers.commands import call
from helpers.digits import digits
from PIL import Image

STEPS = 300


@pytest.mark.slow
def test_the_middle_of_digits_is_made_anew(tmp_path):
    """Weaker bounds than of the whole recipe, which reaches an accuracy of 0.75."""
    short = ("experiment=digits_inpaint", f"trainer.max_steps={STEPS}", f"lr_schedule.total_steps={STEPS}")
    trained = call("train", *short, f"output_dir={tmp_path}", "name=run", "trainer.accelerator=cpu")
    assert trained.status == 0, trained.err
    assert (tmp_path / "run" / "samples" / f"samples_{STEPS:08}.png").is_file()

    images, labels = digits()
    held, targets = images[1500:], labels[1500:]
    unknown = np.zeros((8, 8), bool)
    unknown[2:6, 2:7] = True
    Image.fromarray(unknown).save(tmp_path / "mask.png")
    np.savez(tmp_path / "held.npz", arr_0=held, arr_1=targets)
    made = call(
        "sample",
        f"checkpoint={tmp_path / 'run'}",
        f"inpaint.images={tmp_path / 'held.npz'}",
        f"inpaint.mask={tmp_path / 'mask.png'}",
        "num_samples=297",
        "batch_size=297",
        "sampler.steps=25",
        "accelerator=cpu",
        f"out={tmp_path / 'made'}",
    )
    assert made.status == 0, made.err
    with np.load(tmp_path / "made" / "samples.npz") as arrays:
        samples = arrays["arr_0"]
    filled = held.copy()
    filled[:, unknown] = images[:1500].mean(0).round().astype(np.uint8)[unknown]

    def error(images):
        return np.sqrt(((images.astype(float) - held)[:, unknown] ** 2).mean())

    def accuracy(images, name):
        np.savez(tmp_path / f"{name}.npz", arr_0=images, arr_1=targets)
        places = (f"samples={tmp_path / name}.npz", f"out={tmp_path / name}")
        measured = call("evaluate", *places, "data=digits", "metrics=[class_accuracy]", "accelerator=cpu")
        assert measured.status == 0, measured.err
        return json.loads((tmp_path / name / "metrics.json").read_text())["metrics"]["class_accuracy"]

    assert error(samples) < error(filled)
    assert accuracy(samples, "samples") > accuracy(filled, "filled") + 0.1
