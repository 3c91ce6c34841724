import importlib.util
import json
import os
import shutil
import struct
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
from helpers.commands import call
from PIL import Image
from training_helpers import BUSY, QUIET, TINY, column, read_csv, train

from langevin.commands.train import code_version
from langevin.config.identity import flatten
from langevin.errors import UserError
from langevin.training.loggers.wandb import Wandb
from langevin.training.module import DiffusionModule

pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="the package wandb is not installed")
KEY = "0123456789abcdef" * 2 + "01234567"  # of the form that W&B takes


@pytest.fixture(autouse=True)
def _no_account(tmp_path, monkeypatch):
    """As on a machine that never heard of W&B, and cannot reach it."""
    import wandb

    wandb.teardown()  # it reads its settings once a process
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def records(directory):
    """The records of the one .wandb file under a run's folder: LevelDB's log format, of protocol buffers."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # as at the end of the process: only now is all of the file sure to be on the disk
    (path,) = directory.glob("wandb/*run-*/*.wandb")
    content, place, parts = path.read_bytes(), 7, []
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # a header is not split over blocks
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            record = Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def history(directory):
    """What was logged, by step: {name: {step: JSON text}}."""
    seen = {}
    for record in records(directory):
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            if "trainer/global_step" in items:
                step = int(items.pop("trainer/global_step"))
                for name, value in items.items():
                    seen.setdefault(name, {})[step] = value
    return seen


def config(directory):
    """The config, under its paths."""
    seen = {}
    for record in records(directory):
        for part in (record.config, record.run.config):
            seen |= {item.key: json.loads(item.value_json) for item in part.update if not item.nested_key}
    return dict(flatten(seen))


def test_a_run_is_recorded(tmp_path):
    """Offline: its numbers are those of metrics.csv; and the config, the code's version and the images."""
    run = train(tmp_path, *BUSY, "loggers=[wandb]", "loggers.wandb.mode=offline", "trainer.max_steps=4")
    logged, rows = history(run.directory), read_csv(run.directory / "metrics.csv")
    for name in (
        "train/loss",
        "train/learning_rate",
        "train/grad_norm",
        "train/images_per_second",
        "val/loss",
        "eval/class_accuracy",
    ):
        numbers = {step: float(value) for step, value in logged[name].items()}
        assert numbers, name
        assert numbers == pytest.approx(column(rows, name), rel=1e-6), name

    settings = config(run.directory)
    assert settings["schedule._target_"] == "langevin.diffusion.schedules.cosine.Cosine"
    assert settings["optimizer.lr"] == 1e-3
    assert settings["model.channel_multipliers"] == [1]
    assert settings["code"] == code_version()
    assert settings["parameters"] > 100_000

    for name in ("samples", "trajectory"):
        assert list(logged[f"{name}/filenames"]) == [2, 4]
        assert logged[f"{name}/_type"][4] == '"images/separated"'
        kept = sorted(run.directory.glob(f"wandb/offline-run-*/files/media/images/{name}_*.png"))
        assert len(kept) == 2
        on_disk = Image.open(run.directory / "samples" / f"{name}_00000004.png").convert("RGB")
        small = [np.asarray(Image.open(path).convert("RGB")) for path in kept]
        expected = np.asarray(on_disk.resize(small[0].shape[1::-1], Image.Resampling.NEAREST))
        assert any(np.array_equal(image, expected) for image in small)


@pytest.mark.slow
def test_runs_of_a_sweep_share_a_group_and_no_id(tmp_path, monkeypatch):
    monkeypatch.setenv("LANGEVIN_SWEEP", "")  # so that it is gone afterwards
    offline = ("loggers=[wandb]", "loggers.wandb.mode=offline", "trainer.max_steps=1", f"output_dir={tmp_path}")
    swept = ("schedule=linear,cosine", "conditions.class_label.dropout=0.1,0.2", "model.channel_multipliers=[1]")
    options = (
        option
        for option in (*TINY, *QUIET, *offline)
        if not option.startswith(("schedule", "conditions.class_label.d"))
    )
    result = call("train", "-m", *{option.partition("=")[0]: option for option in options}.values(), *swept)
    assert result.status == 0, result.err
    runs = {path.name: path for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert len(runs) == 4
    recorded = {name: next(r.run for r in records(path) if r.run.run_id) for name, path in runs.items()}
    assert {run.run_group for run in recorded.values()} == {
        "schedule=linear,cosine conditions.class_label.dropout=0.1,0.2"
    }
    assert {run.display_name for run in recorded.values()} == set(runs)
    assert len({run.run_id for run in recorded.values()}) == 4


def test_a_resumed_run_keeps_its_id_and_a_new_one_does_not(tmp_path):
    offline = (*QUIET, "loggers=[wandb]", "loggers.wandb.mode=offline", "loggers.wandb.group=mine")
    seen = []
    for steps in (1, 2, 1):
        run = train(tmp_path, *offline, f"trainer.max_steps={steps}")
        recorded = next(r.run for r in records(run.directory) if r.run.run_id)
        assert (recorded.run_group, recorded.display_name) == ("mine", "run")
        seen.append(recorded.run_id)
        shutil.rmtree(run.directory / "wandb")  # as after `wandb sync --clean`
        if steps == 2:
            shutil.rmtree(run.directory)
    assert seen[0] == seen[1] != seen[2]


def test_without_an_account_it_is_recorded_offline(tmp_path):
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(tmp_path, *QUIET, "loggers=[wandb]", "trainer.max_steps=2")
    (warning,) = [str(warning.message) for warning in caught if "W&B" in str(warning.message)]
    assert "no account on this machine" in warning
    assert f"recording offline in {run.directory / 'wandb'}" in warning
    assert time.monotonic() - began < 20
    assert "WARNING" not in run.err, "of its own"
    assert list(history(run.directory)["train/loss"]) == [1, 2]


@pytest.mark.slow
def test_an_outage_does_not_hold_up_the_run(tmp_path, monkeypatch):
    """An account, but nobody answers: the run is done nonetheless, and says what happened."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(Wandb, "START_SECONDS", 1)
    began = time.monotonic()
    with pytest.warns(UserWarning, match=r"(?s)W&B could not be started \(.*\): recording offline instead"):
        run = train(tmp_path, *QUIET, "loggers=[wandb]", "trainer.max_steps=2")
    assert time.monotonic() - began < 30
    (recorded,) = run.directory.glob("wandb/offline-run-*/*.wandb")
    assert recorded.stat().st_size > 1000
    assert [row["step"] for row in run.rows] == ["1", "2"]
    again = train(tmp_path, *QUIET, "loggers=[wandb]", "loggers.wandb.mode=disabled", "trainer.max_steps=3")
    assert "from step 2 to 3" in again.out


def test_a_folder_that_cannot_be_written_does_not_hold_up_the_run(tmp_path, monkeypatch):
    import wandb

    def fail(*args, settings, **kwargs):
        if settings.mode == "disabled":
            return init(*args, settings=settings, **kwargs)
        raise OSError("no room")

    init = wandb.init
    monkeypatch.setattr(wandb, "init", fail)
    with pytest.warns(UserWarning, match=r"W&B could not be started \(no room\): continuing without it"):
        run = train(tmp_path, *QUIET, "loggers=[wandb]", "loggers.wandb.mode=offline", "trainer.max_steps=2")
    assert [row["step"] for row in run.rows] == ["1", "2"]


class Service(ThreadingHTTPServer):
    """As much of W&B as a run needs, until it goes down."""

    daemon_threads = True
    down = False
    paths: ClassVar[list[str]] = []


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    project: ClassVar = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
    data: ClassVar = {
        "upsertBucket": {
            "bucket": {"id": "b", "name": "run", "displayName": "run", "project": project},
            "inserted": True,
        },
        "model": None,
        "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []},
        "viewer": {"id": "v", "username": "u", "entity": "e", "flags": "{}", "teams": {"edges": []}},
        "serverInfo": None,
    }

    def log_message(self, *args):
        pass

    def do_POST(self):
        if self.server.down:
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.paths.append(self.path)
        answer = json.dumps({"data": self.data} if self.path == "/graphql" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST  # noqa: N815


@pytest.fixture
def service(monkeypatch):
    with Service(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        server.shutdown()


def test_an_outage_in_mid_run_does_not_hold_up_its_end(tmp_path, monkeypatch, service):
    """W&B itself would go on trying for days."""
    import wandb

    step = DiffusionModule.training_step

    def step_and_lose_the_network(self, batch, batch_idx):
        service.down = batch_idx >= 1
        return step(self, batch, batch_idx)

    monkeypatch.setattr(DiffusionModule, "training_step", step_and_lose_the_network)
    monkeypatch.setattr(Wandb, "END_SECONDS", 1)
    began = time.monotonic()
    run = train(tmp_path, *QUIET, "loggers=[wandb]", "trainer.max_steps=3")
    assert service.down
    assert "/graphql" in service.paths
    assert 1 < time.monotonic() - began < 50
    wandb.teardown()  # as at the end of the process
    (recorded,) = run.directory.glob("wandb/run-*/*.wandb")
    assert recorded.stat().st_size > 1000
    assert run.last.exists()


def test_a_failure_in_mid_run_is_reported_once(tmp_path, monkeypatch):
    from lightning.pytorch.loggers import WandbLogger

    def fail(self, *args, **kwargs):
        raise ConnectionError("gone")

    monkeypatch.setattr(WandbLogger, "log_metrics", fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(tmp_path, *QUIET, "loggers=[wandb]", "loggers.wandb.mode=disabled", "trainer.max_steps=3")
    mine = [str(warning.message) for warning in caught if "W&B" in str(warning.message)]
    assert mine == ["W&B failed (gone); the run continues, metrics.csv has the numbers"]
    assert [row["step"] for row in run.rows] == ["1", "2", "3"]


def test_disabled_writes_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*W&B")
        run = train(tmp_path, *BUSY, "loggers=[wandb]", "loggers.wandb.mode=disabled", "trainer.max_steps=2")
    assert not list(tmp_path.rglob("*.wandb"))
    assert not (run.directory / "wandb").exists()


def test_its_absence_is_reported(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a))
    with pytest.raises(
        UserError, match=r"loggers=wandb needs the package wandb: pip install 'langevin-diffusion\[wandb\]'"
    ):
        Wandb(tmp_path, "run")
