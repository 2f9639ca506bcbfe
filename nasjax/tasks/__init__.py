"""Tasks: the data, loss and metrics that super-networks are trained and measured with."""

from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError
from nasjax.objectives import Objective
from nasjax.registry import record, settings
from nasjax.tasks.arrays import ArraysConfig
from nasjax.tasks.base import Runner, Split, Task
from nasjax.tasks.digits import DigitsConfig
from nasjax.tasks.image_classification import ACCURACY, LOSS, ImageClassification
from nasjax.tasks.image_folder import ImageFolderConfig
from nasjax.tasks.own import OwnTaskConfig
from nasjax.tasks.translation import BLEU, CHRF, TranslationConfig

TASKS = {
    "digits": DigitsConfig,
    "arrays": ArraysConfig,
    "image_folder": ImageFolderConfig,
    "imagenet": ImageFolderConfig(validation=0.2, test=0.8),
    "translation": TranslationConfig,
    "own": OwnTaskConfig,
}
"""Every task by name."""


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        ACCURACY,
        LOSS,
        BLEU,
        CHRF,
    )
}
"""The metrics of tasks by name; a table's columns of these names have their meaning."""


def create(name: str, **changes: Any) -> Task:
    """Creates a task by name: `create("digits")`, `create("arrays", path="own.npz")`, or your own, `create("module:name")`.

    `changes`: settings of the task. Raises ConfigError for an unknown name or invalid settings.
    """
    if ":" in name:
        name, changes = "own", {"target": name, **changes}
    config = settings("task", TASKS, {"name": name, **changes})
    return config.create().changed(origin=record(TASKS, config, name))


def from_arrays(images: Any, labels: Any, **changes: Any) -> Task:
    """A task of images in memory: (n, height, width[, channels]), and their classes (n,), whole numbers from 0.

    `changes`: settings of `arrays`, such as `validation`, `test` and `seed`. Raises ConfigError for other arrays, and for
    invalid settings.
    """
    if "path" in changes:
        raise ConfigError("from_arrays takes images in memory: leave path= out, or use create('arrays', path=…)")
    config = settings("task", TASKS, {"name": "arrays", **changes})
    task: Task = config.divided(images, labels, "the arrays")
    return task


def image_classification(path: str | Path, **changes: Any) -> Task:
    """A task of your own images: a folder with a folder for each class, or an .npz file; `changes` as for `create`."""
    return create("arrays" if str(path).endswith(".npz") else "image_folder", path=str(path), **changes)


__all__ = [
    "OBJECTIVES",
    "TASKS",
    "ArraysConfig",
    "DigitsConfig",
    "ImageClassification",
    "ImageFolderConfig",
    "OwnTaskConfig",
    "Runner",
    "Split",
    "Task",
    "TranslationConfig",
    "create",
    "from_arrays",
    "image_classification",
]
