import importlib.util
import io

import numpy as np
import pytest
from PIL import Image
from training_helpers import BUSY, column, read_csv, train

from langevin.errors import UserError
from langevin.training.loggers.tensorboard import TensorBoard


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("tensorboard"), *BUSY, "loggers=[tensorboard]", "trainer.max_steps=4")


@pytest.fixture(scope="module")
def events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.directory / "tensorboard"))
    events.Reload()
    return events


def test_scalars_are_those_of_the_csv_file(run, events):
    rows = read_csv(run.directory / "metrics.csv")
    names = set(rows[0]) - {"step", "eval/protocol"}
    assert names <= set(events.Tags()["scalars"])
    assert {"train/loss", "train/learning_rate", "train/images_per_second", "val/loss", "eval/class_accuracy"} <= names
    (protocol,) = {row["eval/protocol"] for row in rows} - {""}
    texts = events.Tensors("eval/protocol/text_summary")
    assert all(f"{protocol}: {{".encode() in text.tensor_proto.string_val[0] for text in texts)
    assert len(texts) == 2
    for name in names:
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert logged == pytest.approx(column(rows, name), rel=1e-6)


@pytest.mark.parametrize("name", ["samples", "trajectory"])
def test_pictures_are_in_the_event_file(run, events, name):
    shown = events.Images(name)
    assert [image.step for image in shown] == [2, 4]
    picture = Image.open(io.BytesIO(shown[-1].encoded_image_string))
    on_disk = Image.open(run.directory / "samples" / f"{name}_00000004.png")
    assert np.array_equal(np.asarray(on_disk.resize(picture.size, Image.Resampling.NEAREST)), np.asarray(picture))


def test_the_config_is_in_the_event_file(run):
    text = b"".join(path.read_bytes() for path in (run.directory / "tensorboard").glob("events*"))
    assert b"langevin.diffusion.schedules.cosine.Cosine" in text


def test_its_absence_is_told(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name, *a))
    with pytest.raises(
        UserError, match=r"loggers=tensorboard needs the package .* pip install 'langevin\[tensorboard\]'"
    ):
        TensorBoard(tmp_path)
