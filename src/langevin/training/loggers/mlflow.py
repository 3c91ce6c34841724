"""MLflow; its failures never stop the run."""

import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from langevin.config.identity import flatten
from langevin.errors import missing_package
from langevin.files import write_atomically
from langevin.training.loggers.guarded import Guarded

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own would hold up a run for minutes where there is no server
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Of MLflow's environment variables, those that are set here unless the user has set them."""
BATCH = 100  # params of a request, which is what MLflow takes
LONGEST = 500  # characters of a param, likewise
LOCAL = ("sqlalchemy", "alembic")


class MLflow(Guarded, Logger):
    """Logs to MLflow: values, images and the config; where that fails, the run continues without it, with a warning.

    By default everything is kept beside the runs, in `<output_dir>/mlflow.db` and `<output_dir>/mlflow_artifacts`:
    ``mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db`` shows all runs.

    The id of the MLflow run is kept in `<run>/mlflow_id`: a resumed run continues it, and logs nothing twice. MLflow
    changes no param: they are the options that the run was begun with; the artifact `resolved_config.yaml` has those of
    its last session. An `@`, which MLflow takes in no name, becomes ` at `: "eval/fid at 5000".

    Lightning's `MLFlowLogger` is not used: its default store is one that MLflow 3 refuses, and a resumed run fails on
    each param that has changed.

    Args:
        run_dir: the run's folder.
        run_name: the run's name.
        experiment: the MLflow experiment.
        tracking_uri: the server or store, such as http://localhost:5000; None for $MLFLOW_TRACKING_URI, else the file
            beside the runs.
        tags: further tags of the run.

    Raises:
        UserError: when a package is missing.
    """

    service = "MLflow"

    def __init__(
        self,
        run_dir: Path,
        run_name: str,
        experiment: str = "langevin",
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.run_dir = run_dir
        self.run_name = run_name
        self.experiment_name = experiment
        given = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.tracking_uri = given or f"sqlite:///{run_dir.parent.resolve() / 'mlflow.db'}"
        self.artifacts = None if given else (run_dir.parent.resolve() / "mlflow_artifacts").as_uri()
        self.tags = dict(tags or {})
        needed = ("mlflow", *(LOCAL if self.tracking_uri.startswith("sqlite:") else ()))
        if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
            raise missing_package("loggers=mlflow", missing[0], "mlflow")
        self._client: Any = None
        self._start_error: Exception | None = None
        self._run_id: str | None = None
        self._logged: dict[str, int] = {}  # by an earlier session: the last step of each value
        self._params: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The experiment."""
        return self.experiment_name

    @property
    def version(self) -> str | None:
        """The id of the MLflow run; None before it has begun."""
        return self._run_id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client, or None where it has failed; the MLflow run is begun, or continued, here."""
        return self._guarded(self._begun)

    def _begun(self) -> Any:
        """The client, of a run that has begun.

        Raises:
            Exception: where that has failed, at once the second time.
        """
        if self._start_error is not None:
            raise self._start_error
        if self._client is None:
            for name, value in SETTINGS.items():
                os.environ.setdefault(name, value)
            try:
                from mlflow import MlflowClient

                for name in ("mlflow", "alembic"):
                    logging.getLogger(name).setLevel(logging.WARNING)
                client = MlflowClient(self.tracking_uri)
                self._run_id = self._continue(client) or self._begin(client)
            except Exception as error:
                self._start_error = error
                raise
            self._client = client
        return self._client

    def _continue(self, client: Any) -> str | None:
        """The MLflow run of an earlier session; None where there is none, or the store does not have it."""
        from mlflow.exceptions import MlflowException

        try:
            kept = (self.run_dir / "mlflow_id").read_text()
            run = client.get_run(kept)
            client.update_run(kept, status="RUNNING")
        except FileNotFoundError:
            return None
        except MlflowException as error:
            warnings.warn(f"MLflow does not have this run any more ({error}): a new one is begun", stacklevel=2)
            return None
        self._params = dict(run.data.params)
        self._logged = {name: client.get_metric_history(kept, name)[-1].step for name in run.data.metrics}
        return kept

    def _begin(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        if (found := client.get_experiment_by_name(self.experiment_name)) is None:
            with suppress(MlflowException):  # another run may have just made it
                client.create_experiment(self.experiment_name, artifact_location=self.artifacts)
            found = client.get_experiment_by_name(self.experiment_name)
        tags = {"mlflow.source.name": "langevin", "mlflow.source.type": "LOCAL", **self.tags}
        run_id: str = client.create_run(found.experiment_id, run_name=self.run_name, tags=tags).info.run_id
        write_atomically(self.run_dir / "mlflow_id", lambda file: file.write(run_id.encode()))
        return run_id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers; never raises."""
        self._guarded(self._log_metrics, metrics, step or 0)

    def _log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        client = self._begun()
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        numbers = {name.replace("@", " at "): value for name, value in metrics.items() if not isinstance(value, str)}
        fresh = [
            Metric(name, float(value), now, step)
            for name, value in numbers.items()
            if name != "epoch" and step > self._logged.get(name, -1)
        ]
        if fresh:
            client.log_batch(self._run_id, metrics=fresh)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log the config; never raises."""
        self._guarded(self._log_hyperparams, params)

    def _log_hyperparams(self, params: Mapping[str, Any]) -> None:
        client = self._begun()
        from mlflow.entities import Param

        texts = {name.replace("@", " at "): str(value)[:LONGEST] for name, value in flatten(params)}
        fresh = [Param(name, text) for name, text in texts.items() if name not in self._params]
        for start in range(0, len(fresh), BATCH):
            client.log_batch(self._run_id, params=fresh[start : start + BATCH])
        self._params |= texts
        client.log_text(self._run_id, yaml.safe_dump(dict(params), sort_keys=False), "resolved_config.yaml")

    @rank_zero_only
    def log_protocol(self, name: str, protocol: Mapping[str, Any]) -> None:
        """Keep how values were computed, as the artifact `protocols/NAME.yaml`; never raises."""
        text = yaml.safe_dump(dict(protocol), sort_keys=False)
        self._guarded(lambda: self._begun().log_text(self._run_id, text, f"protocols/{name}.yaml"))

    @rank_zero_only
    def log_figure(self, path: Path) -> None:
        """Keep an image of the run as an artifact, in the folder that it has there; never raises."""
        self._guarded(lambda: self._begun().log_artifact(self._run_id, str(path), path.parent.name))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the MLflow run; never raises."""
        if self._client is not None:
            end = "FINISHED" if status == "success" else "FAILED"
            self._guarded(self._client.set_terminated, self._run_id, end)
