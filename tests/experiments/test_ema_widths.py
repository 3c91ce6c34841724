"""The study of the EMA's width after training, experiments/ema/widths.py, at toy sizes."""

import json

import pytest
from helpers.commands import CLASSIFIER, TINY, call

pytest.importorskip("matplotlib")
from experiments.ema import widths

NO_VALUES = ("metrics=[]", "callbacks=[checkpoint]", "trainer.val_check_interval=null")


@pytest.mark.slow  # three trainings
def test_the_ema_of_snapshots_is_compared_with_the_tracked_one(tmp_path):
    def train(name, *options):
        done = call("train", "data=digits", *options, f"name={name}", f"output_dir={tmp_path}")
        assert done.status == 0, done.err
        return str(tmp_path / name)

    classifier = train("classifier", *CLASSIFIER)
    tiny = [each for each in TINY if not each.startswith(("callbacks", "trainer.max_steps"))]
    own = (*tiny, *NO_VALUES, "trainer.max_steps=20", "ema=power")
    snapshots = train("snapshots", *own, "ema.snapshot_every=1")
    tracked = train("tracked", *own, "ema.widths=[0.07,0.2]", "ema.snapshot_every=20")
    asked = ["--widths", "0.2", "0.1", "0.07", "--samples", "40", "--results", str(tmp_path / "results")]
    widths.main([snapshots, tracked, classifier, *asked])

    rows = json.loads((tmp_path / "results" / "widths.json").read_text())
    assert [row["width"] for row in rows] == [0.07, 0.1, 0.2]
    assert (rows[1]["tracked"], rows[1]["difference"]) == (None, None), "it was not tracked"
    for row in (rows[0], rows[2]):
        assert 0 < row["difference"] < 0.01, "not the same weights, but nearly"
        assert row["reconstructed"] == pytest.approx(row["tracked"], rel=0.1)
    assert (tmp_path / "results" / "widths.md").read_text().count("\n| 0.") == 3
    assert (tmp_path / "results" / "widths.png").read_bytes().startswith(b"\x89PNG")
