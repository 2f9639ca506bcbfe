"""Data, loss and metrics of what super-networks are used for."""

from typing import Any

from nasjax.tables import settings
from nasjax.tasks.image_classification import ArraysConfig, DigitsConfig, ImageClassification

TASKS = {"digits": DigitsConfig, "arrays": ArraysConfig}
"""Every task by name."""


def create(name: str, **changes: Any) -> ImageClassification:
    """The named task: `create("digits")`, `create("arrays", path="own.npz")`. Raises ValueError in one line."""
    return settings("task", TASKS, {"name": name, **changes}).create()


__all__ = ["TASKS", "ArraysConfig", "DigitsConfig", "ImageClassification", "create"]
