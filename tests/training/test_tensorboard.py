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
def test_images_are_in_the_event_file(run, events, name):
    shown = events.Images(name)
    assert [image.step for image in shown] == [2, 4]
    shown = Image.open(io.BytesIO(shown[-1].encoded_image_string))
    on_disk = Image.open(run.directory / "samples" / f"{name}_00000004.png")
    assert np.array_equal(np.asarray(on_disk.resize(shown.size, Image.Resampling.NEAREST)), np.asarray(shown))


def test_the_config_is_in_the_event_file(run):
    text = b"".join(path.read_bytes() for path in (run.directory / "tensorboard").glob("events*"))
    assert b"langevin.diffusion.schedules.cosine.Cosine" in text


def test_the_page_of_options_shows_what_differs_and_all_measures(run, tmp_path):
    """As TensorBoard itself answers its page HPARAMS, of two runs."""
    from tensorboard import context
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.backend_context import Context

    other = train(
        tmp_path, *BUSY, "loggers=[tensorboard]", "trainer.max_steps=2", "schedule=linear", "optimizer.lr=0.003"
    )
    runs = EventMultiplexer({"one": str(run.directory / "tensorboard"), "other": str(other.directory / "tensorboard")})
    runs.Reload()
    page = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(tmp_path))))
    request = context.RequestContext()
    metadata = page.hparams_metadata(request, "")
    found = page.experiment_from_metadata(request, "", True, metadata, None)
    options = {info.name: info for info in found.hparam_infos}
    assert options["schedule._target_"].differs
    assert options["optimizer.lr"].differs
    assert options["optimizer.lr"].type == api_pb2.DATA_TYPE_FLOAT64
    assert not options["data._target_"].differs
    measures = {f"{info.name.group}{info.name.tag}" for info in found.metric_infos}
    assert {"train/loss", "val/loss", "eval/class_accuracy"} <= measures
    assert "hp_metric" not in measures


def test_what_a_killed_process_logged_after_its_checkpoint_is_not_shown_twice(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for loss, resumed, steps in ((1.0, 0, range(1, 6)), (2.0, 3, range(4, 8))):
        logger = TensorBoard(tmp_path)
        logger.resume(resumed)
        for step in steps:
            logger.log_metrics({"train/loss": loss}, step)
        logger.save()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert shown == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2), (7, 2)]


def test_its_absence_is_reported(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else find(name, *a))
    with pytest.raises(
        UserError, match=r"loggers=tensorboard needs the package .* pip install 'langevin-diffusion\[tensorboard\]'"
    ):
        TensorBoard(tmp_path)
