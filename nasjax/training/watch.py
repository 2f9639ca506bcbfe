"""Scores of a few sub-networks while they are trained, kept in a table and as TensorBoard events."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax.errors import naming_damage
from nasjax.evaluation import MaskedConfig, measure
from nasjax.host import read_text, replace_file
from nasjax.tasks import Split, Task
from nasjax.training.loop import Training, TrainingState
from nasjax.types import Population

CURVES, EVENTS = "curves.csv", "events"
"""The table of curves, and the folder of TensorBoard events, in the folder of a training."""

EXAMPLES = 1000
"""The most examples that sub-networks are scored on, and re-calibrated on, while they are trained: the first ones."""

MOST_TIME = 0.1
"""The greatest share of the time so far that scoring may have taken when an epoch ends, unless it is the last."""

PLAIN = ("epoch", "step", "loss", "learning_rate", "seconds")
"""The columns that are no scores."""

Row = dict[str, float]
"""Columns of the table by name: epoch, step, loss, learning_rate, seconds, and a metric of each sub-network watched."""


def watched_archs(training: Training) -> dict[str, Population]:
    """The largest sub-network, the smallest, and a random one, always the same; of an extracted network the only one."""
    space = training.space
    if space.size == 1:
        return {"network": np.asarray(space.largest())[None]}
    drawn = np.asarray(space.sample_raw(jax.random.fold_in(training.key, 2**31 - 1), 1))
    return {"largest": space.largest()[None], "smallest": space.smallest()[None], "random": drawn}


def watched_task(training: Training) -> Task:
    """The task whose first metric is watched: the training's, or one that costs less (`Task.cheaper`)."""
    return training.task.cheaper() or training.task


def scoring(training: Training) -> Callable[[TrainingState], dict[str, float]]:
    """A function of a state that scores every sub-network watched, by the watched metric on the first validation examples.

    It compiles once.
    """
    task = watched_task(training)
    task = task.changed(validation=_first(task.validation, EXAMPLES))
    archs = watched_archs(training)
    batch = min(training.config.batch, len(task.train))
    config = MaskedConfig(batch=batch, calibration_examples=max(batch, min(EXAMPLES, len(task.train))), chunk=len(archs))
    evaluator = config.bind(training.unscored(training.begin()), task)
    metric = task.objectives[0].name

    def score(state: TrainingState) -> dict[str, float]:
        found = measure(evaluator.reweighted(training.unscored(state)), np.concatenate(list(archs.values())))[metric]
        return dict(zip(archs, map(float, found), strict=True))

    return score


def _first(split: Split, number: int) -> Split:
    """The first examples, without their buckets: they are padded to the longest of all."""
    first = split.take(slice(number))
    return replace(first, bucket=None)


class Watch:
    """Rows of the curves of one training, in the table and the events of its folder; those after `state` are dropped.

    There is a row for each epoch; scores are in it as often as MOST_TIME allows, and at the end. Used in a `with` statement.
    """

    def __init__(self, folder: Path, training: Training, state: TrainingState):
        self._folder, self._training = folder, training
        self.rows = [row for row in read_curves(folder / CURVES) if row["step"] <= state.steps]
        self._before = self.rows[-1]["seconds"] if self.rows else 0.0
        self._begun, self._spent, self._done = time.monotonic(), 0.0, state.steps
        self._events: Any = None
        self._score: Callable[[TrainingState], dict[str, float]] | None = None
        self.metric = watched_task(training).objectives[0]

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._events is not None:
            self._events.close()

    def __call__(self, state: TrainingState) -> Mapping[str, float]:
        """Adds the row of an epoch that has ended; returns the scores, nothing where they were not due."""
        now = time.monotonic()
        last = self._training.epoch(state) == self._training.config.epochs
        row: Row = {
            "epoch": self._training.epoch(state), "step": state.steps, "loss": state.loss,
            "learning_rate": self._training.rate(state), "seconds": self._before + now - self._begun,
        }  # fmt: skip
        scores: dict[str, float] = {}
        if last or self._spent <= MOST_TIME * (now - self._begun):
            first = self._score is None
            self._score = self._score or scoring(self._training)
            scores = {f"{self.metric.name}_{name}": value for name, value in self._score(state).items()}
            self._spent += 0.0 if first else time.monotonic() - now  # Compiling is done once: it does not count.
        self.rows.append(row | scores)
        write_curves(self._folder / CURVES, self.rows)
        self._write_events(row | scores)
        return {name.rpartition("_")[0] + " " + name.rpartition("_")[2]: value for name, value in scores.items()}

    def lacks(self, state: TrainingState) -> bool:
        """Whether an epoch has ended with this state that has no row."""
        last = int(self.rows[-1]["step"]) if self.rows else 0
        return self._training.ends_epoch(state) and last < state.steps

    def _write_events(self, row: Row) -> None:
        if self._events is None:
            from tensorboardX import SummaryWriter  # Takes a second.

            # What a killed training had written after its last checkpoint is dropped.
            purge = {"purge_step": self._done + 1} if self._done else {}
            self._events = SummaryWriter(str(self._folder / EVENTS), filename_suffix=f".{self._done}", **purge)
        for name in row.keys() - {"epoch", "step", "seconds"}:
            self._events.add_scalar(name, row[name], int(row["step"]))
        self._events.flush()


def read_curves(path: Path) -> list[Row]:
    """The rows of a table of curves; none where it is missing. Cells that are empty are left out."""
    if not path.is_file():
        return []
    with naming_damage(path, "remove it"):
        heads, *lines = (line.split(",") for line in read_text(path).splitlines())
        rows = [{head: float(cell) for head, cell in zip(heads, line, strict=True) if cell} for line in lines]
        if not all(set(PLAIN) <= row.keys() for row in rows):
            raise ValueError("a row lacks its step or loss")
        return rows


def write_curves(path: Path, rows: list[Row]) -> None:
    """Writes a table of curves, atomically."""
    heads = list(dict.fromkeys(head for row in rows for head in row))
    lines = [",".join(heads), *(",".join(_cell(row, head) for head in heads) for row in rows)]
    replace_file(path, ("\n".join(lines) + "\n").encode())


def _cell(row: Row, head: str) -> str:
    value: Any = row.get(head)
    return "" if value is None else str(int(value)) if head in ("epoch", "step") else f"{value:.6g}"
