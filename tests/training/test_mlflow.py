import importlib.util
import json

import pytest
from training_helpers import BUSY, QUIET, column, read_csv, train

from langevin.errors import UserError
from langevin.training.loggers.mlflow import MLflow

pytestmark = [
    pytest.mark.slow,  # MLflow takes seconds to import, and to make its tables
    pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="the package mlflow is not installed"),
]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run of two sessions."""
    folder = tmp_path_factory.mktemp("mlflow")
    first = train(folder, *BUSY, "loggers=[mlflow]", "trainer.max_steps=4")
    return first, train(folder, *BUSY, "loggers=[mlflow]", "trainer.max_steps=6")


def recorded(folder):
    """The one run of a folder's store, its client."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("langevin").experiment_id])
    return client, run


def test_values_are_those_of_the_csv_file_each_once(resumed):
    run = resumed[-1]
    client, kept = recorded(run.directory.parent)
    rows = read_csv(run.directory / "metrics.csv")
    names = set(rows[0]) - {"step", "eval/protocol"}
    assert {"train/loss", "val/loss", "eval/class_accuracy"} <= names == set(kept.data.metrics)
    for name in names:
        history = client.get_metric_history(kept.info.run_id, name)
        found = {each.step: each.value for each in history}
        assert len(history) == len(found)
        if name != "train/images_per_second":
            assert found == pytest.approx(column(rows, name))
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED")
    assert not resumed[0].err.count("MLflow")


def test_the_config_and_the_images_are_there(resumed):
    run = resumed[-1]
    _, kept = recorded(run.directory.parent)
    assert kept.data.params["schedule._target_"] == "langevin.diffusion.schedules.cosine.Cosine"
    assert kept.data.params["trainer.max_steps"] == "4", "of the first session: MLflow changes no param"
    folder = run.directory.parent / "mlflow_artifacts" / kept.info.run_id / "artifacts"
    assert "max_steps: 6" in (folder / "resolved_config.yaml").read_text()
    for name in ("samples", "trajectory"):
        path = f"samples/{name}_00000006.png"
        assert (folder / path).read_bytes() == (run.directory / path).read_bytes()
    (protocol,) = (folder / "protocols").iterdir()
    name = protocol.stem
    assert json.loads((run.directory / "evaluations" / f"protocol-{name}.json").read_text())


def test_a_name_without_the_at_sign(tmp_path):
    (tmp_path / "run").mkdir()
    logger = MLflow(tmp_path / "run", "run")
    logger.log_metrics({"eval/fid@500": 3.5, "epoch": 0, "eval/protocol": "abc"}, step=7)
    _, kept = recorded(tmp_path)
    assert kept.data.metrics == {"eval/fid at 500": 3.5}


def test_a_server_that_is_not_there_stops_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.warns(UserWarning, match="MLflow failed .*; the run continues"):
        run = train(tmp_path, *QUIET, "loggers=[mlflow]", "loggers.mlflow.tracking_uri=http://127.0.0.1:9")
    assert len(run.rows) == 6


@pytest.mark.parametrize("package", ["mlflow", "sqlalchemy"])
def test_a_missing_package_is_one_line(tmp_path, monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'langevin-diffusion\[mlflow\]'"):
        MLflow(tmp_path, "run")
    run = train(tmp_path, *QUIET, "loggers=[mlflow]", status=1)
    assert "Traceback" not in run.err
    assert f"needs the package {package}" in run.err
