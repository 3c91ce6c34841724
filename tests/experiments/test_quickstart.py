"""The figure and the bounds of experiments/quickstart."""

import json
import sys

import numpy as np
import pytest
from experiments.quickstart import bounds, figure
from helpers.commands import TINY, call
from helpers.digits import digits
from PIL import Image

VALUES = {
    "class_accuracy": 0.98,
    "fd_classifier-digits-0123@500": 0.6,
    "recall_classifier-digits-0123@500": 0.92,
    "authenticity_classifier-digits-0123@500": 0.6,
}


def test_the_nearest_image_is_found():
    training = digits()[0][:50]
    images = training[[7, 30]].copy()
    assert images[1, 0, 0, 0] == 0
    images[1, 0, 0, 0] = 51
    distances, places = figure.nearest_images(images, training)
    assert places.tolist() == [7, 30]
    assert distances == pytest.approx([0, 0.2])


def test_the_figure_shows_real_digits_samples_and_the_nearest(tmp_path, monkeypatch, capsys):
    trained = call("train", "experiment=digits", *TINY, "metrics=[]", f"output_dir={tmp_path}", "name=run")
    assert trained.status == 0, trained.err
    out = tmp_path / "samples.png"
    monkeypatch.setattr(sys, "argv", ["figure", str(tmp_path / "run"), f"--out={out}", "--num-samples=40"])
    figure.main()
    pixels = np.array(Image.open(out))
    side = 8 * figure.SCALE
    assert pixels.shape[1] == figure.MARGIN + 10 * (side + figure.GAP)
    # At the left top stands the first real 0, its pixels as squares.
    corner = pixels[figure.GAP :, figure.MARGIN :][:side, :side]
    images, labels = digits()
    real = images[labels == 0][0].repeat(3, axis=-1)
    for start in (0, figure.SCALE - 1):
        assert np.array_equal(corner[start :: figure.SCALE, start :: figure.SCALE], real)
    assert Image.open(tmp_path / "strip.png").size == (20 * 36 + 4, 2 * 36 + 4)
    printed = capsys.readouterr().out
    assert "40 samples:" in printed
    assert "297 held-out digits: 1.15" in printed


@pytest.mark.parametrize(
    ("changed", "status"), [({}, 0), ({"class_accuracy": 0.95}, 1), ({"fd_classifier-x@500": 9}, 1)]
)
def test_a_value_outside_of_its_bounds_fails(changed, status, tmp_path, monkeypatch):
    values = {
        name: value for name, value in VALUES.items() if not any(name[:4] == key[:4] for key in changed)
    } | changed
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"metrics": values}))
    monkeypatch.setattr(sys, "argv", ["bounds", str(path)])
    with pytest.raises(SystemExit) as end:
        bounds.main()
    assert end.value.code == status
