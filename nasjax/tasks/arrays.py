"""Image classification from arrays in an .npz file."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nasjax.errors import ConfigError
from nasjax.host import regular_file
from nasjax.tasks.base import Split
from nasjax.tasks.image_classification import ImageClassification, split_images


@dataclass(frozen=True)
class ArraysConfig:
    """Your own images: an .npz file with `x` (n, height, width[, channels]; uint8 or float) and `y` (n,), classes from 0.

    Every channel is normalised by the mean and standard deviation of the training images.

    Attributes:
      path: the file.
      classes: number of classes; 0: the greatest label + 1. Greater labels raise ConfigError.
      validation, test: shares of all images; the rest is for training.
      seed: shuffles the images before they are split.
    """

    path: str | None = None
    classes: int = 0
    validation: float = 0.3
    test: float = 0.2
    seed: int = 0

    def create(self) -> ImageClassification:
        """Reads the file. Raises ConfigError if it is missing, invalid, or has labels outside the classes."""
        if self.path is None:
            raise ConfigError("task=arrays needs task.path=FILE.npz, a file with arrays x (images) and y (classes)")
        images, labels = _read_arrays(Path(self.path))
        classes = self.classes or int(labels.max()) + 1
        outside = np.flatnonzero(labels >= classes)
        if len(outside):
            raise ConfigError(
                f"{self.path}: y[{outside[0]}] is {labels[outside[0]]}, outside the {classes} classes 0 to {classes - 1} "
                f"({len(outside)} such labels): correct or remove it, or change task.classes"
            )
        if not (self.validation > 0 and self.test > 0 and self.validation + self.test < 1):
            raise ConfigError(
                f"task.validation={self.validation} and task.test={self.test} must be above 0, with a sum below 1"
            )
        sizes = [max(1, round(share * len(labels))) for share in (self.validation, self.test)]
        task = split_images(images, labels, validation=sizes[0], test=sizes[1], seed=self.seed)
        mean = task.train.inputs.mean((0, 1, 2))
        deviation = task.train.inputs.std((0, 1, 2)) + 1e-6
        train, validation, test = (
            Split((split.inputs - mean) / deviation, split.targets) for split in (task.train, task.validation, task.test)
        )
        return ImageClassification(train, validation, test, classes=classes, origin={"name": "arrays", **asdict(self)})


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width, channels) float32, and their labels. Raises ConfigError for an invalid file."""
    regular_file(f"task.path={path}", path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).split(".")[0].split(":")[0]
        raise ConfigError(f"task.path={path} cannot be read as an .npz file of plain arrays ({reason})") from error
    missing = sorted({"x", "y"} - set(arrays))
    if missing:
        raise ConfigError(f"{path} has no array {missing[0]!r}; it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays["x"], arrays["y"]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or len(images) != len(labels) or labels.ndim != 1:
        raise ConfigError(
            f"{path}: x must be (n, height, width[, channels]) and y (n,), not {arrays['x'].shape} and {labels.shape}"
        )
    if len(labels) < 10:
        raise ConfigError(f"{path} has {len(labels)} images; at least 10 are needed to train, validate and test")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"{path}: y must be integers from 0, not {labels.dtype}")
    if labels.min() < 0:
        raise ConfigError(f"{path}: y[{labels.argmin()}] is {labels.min()}: classes must be integers from 0")
    if not np.isfinite(images.astype(np.float32)).all():
        raise ConfigError(f"{path}: x has values that are not finite")
    return images.astype(np.float32), labels
