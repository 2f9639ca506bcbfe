"""Image classification from arrays: data in three splits, loss and metrics."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError

Logits = Float[Array, "batch classes"]
Labels = Int[Array, " batch"]


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures (n, height, width, channels) float32, already normalised, and their classes (n,) int32."""

    images: Float[np.ndarray, "n height width channels"]
    labels: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageClassification:
    """Pictures of `classes` kinds: trained on `train`, searched on `validation`, quoted on `test`.

    Metrics: `accuracy_top1` (%, 0-100) and `loss` (cross-entropy, nats). `origin` says how it was made: `name`, settings.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    origin: Mapping[str, Any] = field(default_factory=lambda: {"name": "in memory"})

    metrics: ClassVar[tuple[str, ...]] = ("accuracy_top1", "loss")

    def scores(self, logits: Logits, labels: Labels) -> Float[Array, "batch metrics"]:
        """Every metric of every picture; a network's metric is the mean."""
        correct = 100.0 * (logits.argmax(-1) == labels)
        return jnp.stack([correct, self.losses(logits, labels)], axis=-1)

    def losses(self, logits: Logits, labels: Labels) -> Float[Array, " batch"]:
        """Cross-entropy of every picture, in nats."""
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def distillation(self, logits: Logits, teacher: Logits) -> Float[Array, " batch"]:
        """Cross-entropy of every picture against the teacher's probabilities."""
        return optax.softmax_cross_entropy(logits, jax.nn.softmax(jax.lax.stop_gradient(teacher)))

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and greatest value of every metric that a useful network has: no loss is above that of guessing."""
        return {"accuracy_top1": (0.0, 100.0), "loss": (0.0, float(np.log(self.classes)))}

    def digest(self) -> str:
        """Names the data and its splits: equal for equal pictures and labels."""
        hashed = sha256()
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Split):
                hashed.update(str((part.name, value.images.shape)).encode())
                hashed.update(np.ascontiguousarray(value.images).data)
                hashed.update(np.ascontiguousarray(value.labels).data)
        return hashed.hexdigest()


def split_images(
    images: Float[np.ndarray, "n height width channels"],
    labels: Int[np.ndarray, " n"],
    validation: int,
    test: int,
    seed: int,
) -> ImageClassification:
    """Draws the test and validation pictures at random (NumPy's PCG64 with `seed`); the rest is for training."""
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = np.split(order, [len(labels) - validation - test, len(labels) - test])
    train, held, unseen = (
        Split(np.ascontiguousarray(images[part], np.float32), labels[part].astype(np.int32)) for part in parts
    )
    return ImageClassification(train, held, unseen, classes=int(labels.max()) + 1)


@dataclass(frozen=True)
class DigitsConfig:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 pixels: 900 for training, 600 for validation, 297 for test."""

    seed: int = 0

    def create(self) -> ImageClassification:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images[..., None] / 16.0 - 0.3) / 0.38
        task = split_images(images, digits.target, validation=600, test=297, seed=self.seed)
        return replace(task, origin={"name": "digits", **asdict(self)})


@dataclass(frozen=True)
class ArraysConfig:
    """Your own pictures: an .npz file with `x` (n, height, width[, channels]; uint8 or float) and `y` (n,), classes from 0.

    `classes` is how many there are (0: as the labels show); a label outside them is refused. `validation` and `test` are
    shares of all pictures. Every channel is normalised by the mean and deviation of the training pictures; uint8 and float
    alike.
    """

    path: str | None = None
    classes: int = 0
    validation: float = 0.3
    test: float = 0.2
    seed: int = 0

    def create(self) -> ImageClassification:
        """Raises ConfigError, in one line, for a file that is missing or not of this form."""
        if self.path is None:
            raise ConfigError("task=arrays needs task.path=FILE.npz, a file with arrays x (pictures) and y (classes)")
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
                f"task.validation={self.validation} and task.test={self.test} must be shares that leave some to train"
            )
        sizes = [max(1, round(share * len(labels))) for share in (self.validation, self.test)]
        task = split_images(images, labels, validation=sizes[0], test=sizes[1], seed=self.seed)
        mean = task.train.images.mean((0, 1, 2))
        deviation = task.train.images.std((0, 1, 2)) + 1e-6
        train, held, unseen = (
            Split((split.images - mean) / deviation, split.labels) for split in (task.train, task.validation, task.test)
        )
        return ImageClassification(train, held, unseen, classes, {"name": "arrays", **asdict(self)})


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise ConfigError(f"task.path={path} is not a file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        reason = str(error).split(".")[0].split(":")[0]
        raise ConfigError(f"task.path={path} cannot be read as an .npz file of plain arrays ({reason})") from error
    missing = sorted({"x", "y"} - set(arrays))
    if missing:
        raise ConfigError(f"{path} has no array {missing[0]!r}; it holds {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays["x"], arrays["y"]
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or len(images) != len(labels) or labels.ndim != 1:
        raise ConfigError(
            f"{path}: x must be (n, height, width[, channels]) and y (n,), not {arrays['x'].shape} and {labels.shape}"
        )
    if len(labels) < 10:
        raise ConfigError(f"{path} has {len(labels)} pictures; at least 10 are needed to train, validate and test")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(f"{path}: y must be whole numbers from 0, not {labels.dtype}")
    if labels.min() < 0:
        raise ConfigError(f"{path}: y[{labels.argmin()}] is {labels.min()}: classes are whole numbers from 0")
    if not np.isfinite(images.astype(np.float32)).all():
        raise ConfigError(f"{path}: x holds values that are not finite")
    return images.astype(np.float32), labels
