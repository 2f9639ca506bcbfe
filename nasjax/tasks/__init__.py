"""Data, loss and metrics of what super-networks are used for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nasjax.registry import settings
from nasjax.tasks.classification import ArraysConfig, DigitsConfig, ImageClassification
from nasjax.tasks.image_folder import ImageFolderConfig

TASKS = {
    "digits": DigitsConfig,
    "arrays": ArraysConfig,
    "image_folder": ImageFolderConfig,
    "imagenet": ImageFolderConfig(validation=0.2, test=0.8),
}
"""Every task by name."""


def create(name: str, **changes: Any) -> ImageClassification:
    """The named task: `create("digits")`, `create("arrays", path="own.npz")`. Raises ConfigError in one line."""
    task = settings("task", TASKS, {"name": name, **changes}).create()
    return replace(task, origin={**task.origin, "name": name})


def image_classification(path: str | Path, **changes: Any) -> ImageClassification:
    """Your own pictures: a folder with one folder a class, or an .npz file; `changes` as for `create`."""
    return create("arrays" if str(path).endswith(".npz") else "image_folder", path=str(path), **changes)


__all__ = [
    "TASKS",
    "ArraysConfig",
    "DigitsConfig",
    "ImageClassification",
    "ImageFolderConfig",
    "create",
    "image_classification",
]
