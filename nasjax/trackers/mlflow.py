"""`tracker=mlflow`: MLflow, in a database file or on a server."""

import csv
import io
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError
from nasjax.trackers.base import Started, Table, Tracker

MOST_PARAMS, LONGEST_PARAM = 100, 500
"""The most parameters that MLflow takes at once, and the most characters of one that all its stores take."""

ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Nothing is told to its makers; no lines on its tables; a server that is away does not hold a search up for minutes."""


@dataclass(frozen=True)
class MLflow(Tracker):
    """MLflow. `mlflow ui --backend-store-uri sqlite:///mlflow.db` shows the default store.

    Attributes:
      project: the experiment that runs belong to.
      uri: the store: a database file where nasjax is started, or the address of a server, which everything is then sent to.
    """

    project: str = "nasjax"
    uri: str = "sqlite:///mlflow.db"

    name = "mlflow"
    package = "mlflow"

    def check(self, folder: Path | None) -> None:
        """Raises ConfigError where `uri` is not a store, or MLflow is missing."""
        if not re.match(r"\w+(\+\w+)?:|databricks$", self.uri):
            raise ConfigError(
                f"tracker.uri={self.uri} is not a store: say sqlite:///FILE.db, or a server's address, http://…"
            )
        super().check(folder)

    def start(self, run: Started) -> "MLflowRun":
        """Begins a run, or takes up that with the same id."""
        for variable, value in ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client = MlflowClient(tracking_uri=self.uri)
        id = run.id
        if id is None:
            experiment = client.get_experiment_by_name(self.project)
            group = client.create_experiment(self.project) if experiment is None else experiment.experiment_id
            id = client.create_run(group, run_name=run.name).info.run_id
        else:
            client.update_run(id, status="RUNNING")
        known = client.get_run(id).data.params  # A parameter keeps its first value.
        params = [Param(k, str(v)[:LONGEST_PARAM]) for k, v in run.settings.items() if k not in known]
        for first in range(0, len(params), MOST_PARAMS):
            client.log_batch(id, params=params[first : first + MOST_PARAMS])
        return MLflowRun(id, client)


class MLflowRun:
    """A run of MLflow: metrics by step; tables (as CSV) and files as artefacts."""

    def __init__(self, id: str, client: Any):
        self.id, self._client = id, client

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of a step."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def finish(self, tables: Mapping[str, Table], files: Sequence[Path], complete: bool) -> None:
        """Stores tables and files as artefacts, and closes the run."""
        for name, (header, rows) in tables.items():
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([header, *rows])
            self._client.log_text(self.id, text.getvalue(), f"{name}.csv")
        for file in files:
            self._client.log_artifact(self.id, str(file))
        self._client.set_terminated(self.id, "FINISHED" if complete else "FAILED")
