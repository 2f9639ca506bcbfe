"""Trackers of experiments: where the settings, metrics and results of searches and trainings are shown beside others."""

from nasjax.trackers.base import NoTracker, Started, Table, TrackedRun, Tracker
from nasjax.trackers.mlflow import MLflow
from nasjax.trackers.tensorboard import TensorBoard
from nasjax.trackers.tracking import Tracking
from nasjax.trackers.trackio import Trackio
from nasjax.trackers.wandb import Wandb

TRACKERS: dict[str, type[Tracker]] = {tracker.name: tracker for tracker in (NoTracker, TensorBoard, Trackio, Wandb, MLflow)}
"""Trackers by name, as in `tracker=NAME`."""

__all__ = [
    "TRACKERS", "MLflow", "NoTracker", "Started", "Table", "TensorBoard", "TrackedRun", "Tracker", "Tracking", "Trackio",
    "Wandb",
]  # fmt: skip
