"""Super-network training by the sandwich rule with in-place distillation (Universally Slimmable Networks, arXiv:1903.05134).

Every step trains the largest sub-network on the labels, and the smallest and some random ones on the largest's answers. A
network that was extracted is its only sub-network, and is trained on the labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from nasjax.errors import ConfigError
from nasjax.evaluation.calibration import calibrate
from nasjax.supernets.resolution import resized
from nasjax.supernets.supernet import SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Images, PRNGKey


@dataclass(frozen=True)
class SandwichConfig:
    """Settings: AdamW under a cosine schedule with warm-up; pictures are shifted by up to `shift` pixels.

    Where the resolution is elastic, every step draws one for all its sub-networks.
    """

    epochs: int = 60
    batch: int = 90
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    random_subnets: int = 2
    shift: int = 1

    def __post_init__(self):
        for name in ("epochs", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer.{name} must be above 0, not {getattr(self, name)}")

    def train(
        self, net: SuperNet, task: ImageClassification, key: PRNGKey, progress: Callable[[int, int, float], None]
    ) -> SuperNet:
        """A trained copy of `net`, its stored statistics those of the largest sub-network.

        `progress(epoch, epochs, loss)` is called after every epoch. Raises FloatingPointError where the loss is not finite.
        """
        return _train(self, net, task, key, progress)


def _train(config: SandwichConfig, net: SuperNet, task: ImageClassification, key: PRNGKey, progress: Any) -> SuperNet:
    batch = min(config.batch, len(task.train))
    steps = len(task.train) // batch
    total = config.epochs * steps
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, total // 20, total)
    optimiser = optax.adamw(schedule, weight_decay=config.weight_decay)
    graph, weights, rest = nnx.split(nnx.clone(net), nnx.Param, ...)  # type: ignore[misc]  # keep() below writes
    images, labels = jnp.asarray(task.train.images), jnp.asarray(task.train.labels)

    def gradient_at(size):
        def loss(weights, images, labels, archs):
            return _sandwich_loss(nnx.merge(graph, weights, rest), task, resized(images, size), labels, archs)

        return jax.value_and_grad(loss)

    gradients = [gradient_at(size) for size in net.resolutions or (None,)]

    def step(carry, inputs):
        weights, moments = carry
        rows, key = inputs
        shift, sample = jax.random.split(key)
        archs = net.space.sample_raw(sample, config.random_subnets)
        shifted = shift_images(shift, images[rows], config.shift)
        size = jax.random.randint(jax.random.fold_in(sample, 0), (), 0, len(gradients))
        value, gradient = lax.switch(size, gradients, weights, shifted, labels[rows], archs)
        updates, moments = optimiser.update(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments), value

    @jax.jit
    def epoch(weights, moments, key):
        order, draws = jax.random.split(key)
        rows = jax.random.permutation(order, len(images))[: steps * batch].reshape(steps, batch)
        (weights, moments), losses = lax.scan(step, (weights, moments), (rows, jax.random.split(draws, steps)))
        return weights, moments, losses.mean()

    moments = optimiser.init(weights)
    for i in range(config.epochs):
        weights, moments, value = epoch(weights, moments, jax.random.fold_in(key, i))
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss became {value} in epoch {i + 1}; a smaller trainer.learning_rate helps")
        progress(i + 1, config.epochs, float(value))
    trained = nnx.merge(graph, weights, rest)
    store_statistics(trained, task, batch)
    return trained


def _sandwich_loss(net, task, images, labels, archs):
    """Mean over largest, smallest and random sub-networks; the first learns from labels, the others from it."""
    space = net.space
    teacher, _ = net.forward(images, tuple(map(int, space.largest())), None)
    if space.size == 1:  # A network that was extracted has nobody to teach.
        return task.losses(teacher, labels).mean()
    smallest, _ = net.forward(images, tuple(map(int, space.smallest())), None)
    students = jnp.concatenate([smallest[None], jax.vmap(lambda arch: net.forward(images, arch, None)[0])(archs)])
    taught = jax.vmap(lambda logits: task.distillation(logits, teacher).mean())(students)
    return (task.losses(teacher, labels).mean() + taught.sum()) / (1 + len(students))


def shift_images(key: PRNGKey, images: Images, most: int) -> Images:
    """Every picture moved by up to `most` pixels either way, edges repeated."""
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)

    def crop(image, corner):
        return lax.dynamic_slice(image, (corner[0], corner[1], jnp.int32(0)), (height, width, channels))

    return jax.vmap(crop)(padded, corners)


def store_statistics(net: SuperNet, task: ImageClassification, batch: int) -> None:
    """Keeps with the weights the statistics of the largest sub-network on the training pictures; in place."""
    number = len(task.train) // batch
    batches = jnp.asarray(task.train.images[: number * batch]).reshape(number, batch, *task.train.images.shape[1:])
    largest = np.asarray(net.space.largest())
    found = calibrate(net, jnp.asarray(largest), batches, net.resolution(largest))
    for stage, statistics in zip(net.stages, found, strict=True):
        stage.keep(statistics)
