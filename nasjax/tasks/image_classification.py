"""Image classification: accuracy and cross-entropy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError
from nasjax.objectives import Objective
from nasjax.supernets import SuperNet
from nasjax.tasks.base import SPLITS, Split, Task
from nasjax.tasks.divergences import Divergence, cross_entropy
from nasjax.tasks.image_augmentation import Augmentation, Mixed, Scale, augment_images
from nasjax.types import Images, PRNGKey

Logits = Float[Array, "batch classes"]
Labels = Int[Array, " batch"]

ACCURACY = Objective(
    "accuracy_top1",
    "max",
    "%",
    range=(0.0, 100.0),
    about="share of images whose class comes first, % (image classification)",
)
LOSS = Objective("loss", "min", "nats", about="cross-entropy of an image's class or a translation's token, nats")


@dataclass(eq=False)
class ImageClassification(Task):
    """Images (n, height, width, channels) float32, already normalised, and their classes (n,) int32, from 0.

    `scale` says how, for augmentations that change colours.

    Metrics: `accuracy_top1` (%, 0-100) and `loss` (cross-entropy, nats), whose range ends at that of random guessing.
    """

    classes: int
    scale: Scale = field(default=Scale(), kw_only=True)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        guessing = float(np.log(self.classes))
        return (ACCURACY, replace(LOSS, range=(0.0, guessing)))

    def statistics(self, outputs: Logits, targets: Labels) -> Float[Array, "batch 3"]:
        """For every example: 1, whether the largest logit is the target's, and the cross-entropy."""
        correct = (outputs.argmax(-1) == targets).astype(outputs.dtype)
        return jnp.stack([jnp.ones_like(correct), correct, self.loss(outputs, targets)], axis=-1)

    def metrics(self, totals: Float[Array | np.ndarray, "3"]) -> Mapping[str, Float[Array, ""] | float]:
        number, correct, loss = totals
        return {"accuracy_top1": 100.0 * correct / number, "loss": loss / number}

    def loss(
        self,
        outputs: Logits,
        targets: Labels | Mixed,
        teacher: Logits | None = None,
        divergence: Divergence = cross_entropy,
    ) -> Float[Array, " batch"]:
        """Cross-entropy of every image, in nats: against its class, or against the teacher's probabilities.

        `divergence`: what takes the place of cross-entropy there. Of mixed images the classes' losses are averaged by share.
        """
        if teacher is None and isinstance(targets, Mixed):
            first, second = (self.loss(outputs, labels) for labels in (targets.first, targets.second))
            return targets.share * first + (1 - targets.share) * second
        if teacher is None:
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
        return divergence(outputs, teacher)

    def augment(self, key: PRNGKey, inputs: Images, targets: Labels, settings: Augmentation) -> tuple[Images, Any]:
        """Augmented images, and their classes; where images are mixed, `Mixed` ones."""
        return augment_images(key, inputs, targets, settings, self.scale)

    def check(self, net: SuperNet) -> None:
        """Raises ConfigError if the images or classes do not fit a super-network."""
        wanted = net.inputs(1)
        shape = self.train.inputs.shape[1:]
        if not isinstance(wanted, jax.ShapeDtypeStruct) or shape != wanted.shape[1:]:
            sizes = [" x ".join(map(str, one)) for one in (shape, net.input_shape)]
            raise ConfigError(
                f"the task's images are {sizes[0]}, but the super-network reads {sizes[1] or 'other inputs'}: "
                f"change {' or '.join([*_settings_of(net, 'image_size', 'channels'), 'the data'])}"
            )
        classes = net.output().shape[-1]
        if classes < self.classes:
            raise ConfigError(
                f"the task has {self.classes} classes, but the super-network {classes}: "
                f"change {' or '.join([*_settings_of(net, 'classes'), 'the labels'])}"
            )
        for name in SPLITS:
            labels = getattr(self, name).targets
            outside = labels[(labels < 0) | (labels >= self.classes)]
            if len(outside):
                raise ConfigError(f"labels must be 0 to {self.classes - 1}, but one is {outside[0]}")
        super().check(net)


def _settings_of(net: SuperNet, *names: str) -> list[str]:
    """Those of the settings that a super-network has; an extracted network has none."""
    return [f"supernet.{name}" for name in names if name in net.origin and net.space.size > 1]


def split_images(
    images: Float[np.ndarray, "n height width channels"],
    labels: Int[np.ndarray, " n"],
    validation: int,
    test: int,
    seed: int,
) -> ImageClassification:
    """A task with random test and validation images (NumPy's PCG64 with `seed`); the rest is for training."""
    order = np.random.default_rng(seed).permutation(len(labels))
    parts = np.split(order, [len(labels) - validation - test, len(labels) - test])
    train_split, validation_split, test_split = (
        Split(np.ascontiguousarray(images[part], np.float32), labels[part].astype(np.int32)) for part in parts
    )
    return ImageClassification(train_split, validation_split, test_split, classes=int(labels.max()) + 1)
