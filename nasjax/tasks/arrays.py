"""Image classification from arrays in an .npz file."""

import math
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import numpy as np

from nasjax.errors import ConfigError, one_line
from nasjax.host import memory_bytes, regular_file
from nasjax.tasks.base import Split
from nasjax.tasks.image_augmentation import Scale
from nasjax.tasks.image_classification import ImageClassification, split_images

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""What reads an array's header, by the version of NumPy's format."""


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
        origin = {"name": "arrays", **asdict(self)}
        return self.divided(images, labels, self.path).changed(origin=origin)

    def divided(self, images: np.ndarray, labels: np.ndarray, said: str) -> ImageClassification:
        """The task of images and their classes. Raises ConfigError, which begins with `said`, for arrays that are none."""
        try:
            images, labels = np.asarray(images), np.asarray(labels)
        except ValueError as error:  # Lists of different lengths.
            raise ConfigError(f"{said}: x and y must be arrays ({one_line(error)})") from None
        images, labels = _checked(images, labels, said)
        classes = self.classes or int(labels.max()) + 1
        outside = np.flatnonzero(labels >= classes)
        if len(outside):
            raise ConfigError(
                f"{said}: y[{outside[0]}] is {labels[outside[0]]}, outside the {classes} classes 0 to {classes - 1} "
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
        white = 255 if images.max() > 1 else 1
        scale = Scale(tuple(map(float, mean / white)), tuple(map(float, deviation / white)))
        return ImageClassification(train, validation, test, classes=classes, scale=scale)


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays x and y of a file. Raises ConfigError for an invalid one."""
    regular_file(f"task.path={path}", path)
    try:
        with zipfile.ZipFile(path) as file:
            members = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
            missing = sorted({"x", "y"} - set(members))
            if missing:
                raise ConfigError(f"{path} has no array {missing[0]!r}; it has {', '.join(sorted(members)) or 'none'}"[:300])
            for name in ("x", "y"):
                with file.open(members[name]) as member:
                    _check_header(f"{path}: {name}", member, members[name].file_size)
            return _read_array(file, members["x"]), _read_array(file, members["y"])
    except ConfigError:
        raise
    except Exception as error:  # A damaged file may raise anything in zipfile and NumPy.
        raise ConfigError(f"task.path={path} cannot be read as an .npz file of arrays ({one_line(error)})") from error


def _checked(images: np.ndarray, labels: np.ndarray, said: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width, channels) float32, and their labels. Raises ConfigError for arrays that are none."""
    shapes = f"{images.shape} and {labels.shape}"
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels) or 0 in images.shape[1:]:
        raise ConfigError(f"{said}: x must be (n, height, width[, channels]) and y (n,), not {shapes}")
    if images.dtype.kind not in "buif":
        raise ConfigError(f"{said}: x has the type {images.dtype}; it must be plain real numbers"[:200])
    if len(labels) < 10:
        raise ConfigError(f"{said} has {len(labels)} images; at least 10 are needed to train, validate and test")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"{said}: y must be integers from 0, not {labels.dtype}")
    if labels.min() < 0:
        raise ConfigError(f"{said}: y[{labels.argmin()}] is {labels.min()}: classes must be integers from 0")
    with np.errstate(over="ignore"):
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise ConfigError(f"{said}: x has values that are not finite")
    return images, labels


def _check_header(said: str, member: IO[bytes], size: int) -> None:
    """Raises ConfigError, before an array is read, where it is of no plain type, or not of the size that it says.

    `size`: the bytes of the array's file, header included. Arrays that this machine cannot hold are refused, too.
    """
    version = np.lib.format.read_magic(member)
    if version not in HEADERS:
        raise ConfigError(f"{said} is a structured array, or of a later format; save plain numbers")
    shape, _, dtype = HEADERS[version](member)
    if dtype.kind not in "buif":
        raise ConfigError(f"{said} has the type {dtype}; it must be plain real numbers"[:200])
    stated, stored = math.prod(shape) * dtype.itemsize, size - member.tell()
    if min(shape, default=0) < 0 or stated != stored:
        raise ConfigError(f"{said} says that it is {shape} {dtype}, {stated} bytes, but has {stored}: the file is damaged")
    needed, memory = stored + 2 * 4 * math.prod(shape), memory_bytes()
    if needed > 0.8 * memory:
        raise ConfigError(f"{said} takes {needed / 1e9:.0f} GB in memory, this machine has {memory / 1e9:.0f}: save fewer")


def _read_array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with file.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
