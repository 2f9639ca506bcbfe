"""The training loop of all methods; a method chooses the sub-networks of each step, their weights and teachers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.calibration import calibrate
from nasjax.jax_defaults import with_jax_defaults
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tasks import Split, Task
from nasjax.types import PRNGKey

TrainingProgress = Callable[[int, int, float], None]
"""Called after every epoch with its number (from 1), the number of epochs and the mean loss."""


class Subnets(NamedTuple):
    """The sub-networks of one step: fixed architectures (`static`) and random ones (`traced`).

    A sub-network learns from the targets (teacher None), or from the outputs of its teacher, an index of `static`. `weights`
    are the weights of their losses, those of `static` first; they need not sum to 1.
    """

    static: tuple[tuple[int, ...], ...]
    static_teachers: tuple[int | None, ...]
    traced: Int[Array, "traced genes"]
    traced_teacher: int | None
    weights: tuple[float, ...]


@dataclass(frozen=True)
class TrainerConfig(ABC):
    """Settings of all methods: AdamW, a cosine schedule with warm-up, and images shifted by up to `shift` pixels.

    Every step draws one option of each host gene (such as an elastic resolution) for all its sub-networks.
    """

    epochs: int = 60
    batch: int = 90
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    shift: int = 1

    def __post_init__(self):
        for name in ("epochs", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer.{name} must be above 0, not {getattr(self, name)}")

    def advice(self, net: SuperNet) -> str:
        """What a person should know before `net` is trained so, on one line; usually nothing."""
        return ""

    @abstractmethod
    def subnets(self, space: SearchSpace, key: PRNGKey) -> Subnets:
        """The sub-networks of a step; called within jit."""

    @with_jax_defaults
    def train(self, net: SuperNet, task: Task, key: PRNGKey, progress: TrainingProgress) -> SuperNet:
        """A trained copy of `net`, with the batch-norm statistics of the largest sub-network.

        Raises FloatingPointError if the loss is not finite.
        """
        return _train(self, net, task, key, progress)


def _train(config: TrainerConfig, net: SuperNet, task: Task, key: PRNGKey, progress: TrainingProgress) -> SuperNet:
    buckets = _buckets(task.train, config.batch)
    total = config.epochs * sum(bucket.steps for bucket in buckets)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, total // 20, total)
    optimiser = optax.adamw(schedule, weight_decay=config.weight_decay)
    graph, weights, rest = nnx.split(nnx.clone(net), nnx.Param, ...)  # type: ignore[misc]  # store_statistics writes

    def gradient_at(host: Any) -> Callable[..., Any]:
        def loss(weights: Any, inputs: PyTree, targets: PyTree, key: PRNGKey) -> Float[Array, ""]:
            merged = nnx.merge(graph, weights, rest)
            return step_loss(merged, task, merged.prepare(inputs, host), targets, config.subnets(net.space, key))

        return jax.value_and_grad(loss)

    gradients = [gradient_at(host) for host in net.all_hosts()]

    @jax.jit
    def run(weights: Any, moments: Any, examples: PyTree, rows: Any, keys: Any) -> tuple[Any, Any, Float[Array, " steps"]]:
        def step(carry: Any, drawn: Any) -> tuple[Any, Float[Array, ""]]:
            weights, moments = carry
            rows, key = drawn
            shift, sample = jax.random.split(key)
            inputs, targets = jax.tree.map(lambda leaf: leaf[rows], examples)
            augmented = task.augment(shift, inputs, config.shift)
            host = jax.random.randint(jax.random.fold_in(sample, 0), (), 0, len(gradients))
            value, gradient = lax.switch(host, gradients, weights, augmented, targets, sample)
            updates, moments = optimiser.update(gradient, moments, weights)
            return (optax.apply_updates(weights, updates), moments), value

        (weights, moments), losses = lax.scan(step, (weights, moments), (rows, keys))
        return weights, moments, losses

    moments = optimiser.init(weights)
    for i in range(config.epochs):
        losses = []
        for bucket, rows, keys in _batches(buckets, jax.random.fold_in(key, i)):
            weights, moments, values = run(weights, moments, bucket.examples, rows, keys)
            losses.append(values)
        value = float(jnp.concatenate(losses).mean())
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {value} in epoch {i + 1}: reduce trainer.learning_rate")
        progress(i + 1, config.epochs, value)
    trained = nnx.merge(graph, weights, rest)
    store_statistics(trained, task, min(config.batch, len(task.train)))
    return trained


class Bucket(NamedTuple):
    """Training examples of one padded length, on the device, and the batches of an epoch: `steps` of `batch` examples."""

    examples: PyTree[Array]
    number: int
    batch: int

    @property
    def steps(self) -> int:
        return self.number // self.batch


def _buckets(split: Split, batch: int) -> list[Bucket]:
    """The examples by bucket; one bucket of all where sentences have no lengths."""
    tree = split.inputs, split.targets
    lengths = [None] if split.bucket is None else np.unique(split.bucket).tolist()
    buckets = []
    for length in lengths:
        rows = np.arange(len(split)) if length is None else np.flatnonzero(split.bucket == length)
        own = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(np.asarray(leaf)[rows]), split.trimmed(tree, length))
        buckets.append(Bucket(own, len(rows), min(batch, len(rows))))
    return buckets


def _batches(buckets: list[Bucket], key: PRNGKey) -> Iterator[tuple[Bucket, Int[Array, "steps batch"], PRNGKey]]:
    """The rows and keys of an epoch's steps: of one bucket all at once, of several one by one in random order."""
    drawn = []
    for i, bucket in enumerate(buckets):
        order, draws = jax.random.split(key if len(buckets) == 1 else jax.random.fold_in(key, i))
        rows = jax.random.permutation(order, bucket.number)[: bucket.steps * bucket.batch]
        drawn.append((bucket, rows.reshape(bucket.steps, bucket.batch), jax.random.split(draws, bucket.steps)))
    if len(buckets) == 1:
        yield drawn[0]
        return
    steps = [(bucket, rows[i : i + 1], keys[i : i + 1]) for bucket, rows, keys in drawn for i in range(bucket.steps)]
    for i in np.asarray(jax.random.permutation(jax.random.fold_in(key, len(buckets)), len(steps))):
        yield steps[i]


def step_loss(net: SuperNet, task: Task, inputs: PyTree, targets: PyTree, subnets: Subnets) -> Float[Array, ""]:
    """The weighted mean of the sub-networks' losses on a batch; batch norms use the batch's statistics."""
    static = [net.forward(inputs, arch, None)[0] for arch in subnets.static]
    traced = jax.vmap(lambda arch: net.forward(inputs, arch, None)[0])(subnets.traced) if len(subnets.traced) else None
    total: Any = 0.0
    for teacher in dict.fromkeys((*subnets.static_teachers, *([] if traced is None else [subnets.traced_teacher]))):
        # The losses of one teacher's students are computed at once.
        rows = [i for i, other in enumerate(subnets.static_teachers) if other == teacher]
        students = [jax.tree.map(lambda leaf: leaf[None], static[i]) for i in rows]
        weights = [subnets.weights[i] for i in rows]
        if traced is not None and subnets.traced_teacher == teacher:
            students.append(traced)
            weights += subnets.weights[len(static) :]
        outputs = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *students)
        teacher_outputs = None if teacher is None else lax.stop_gradient(static[teacher])
        losses = jax.vmap(lambda one, taught=teacher_outputs: task.loss(one, targets, taught).mean())(outputs)
        total += (losses * np.array(weights, np.float32)).sum()
    return total / sum(subnets.weights)


def store_statistics(net: SuperNet, task: Task, batch: int) -> None:
    """Stores the batch-norm statistics of the largest sub-network on the training examples; in place."""
    if not net.has_norms:
        return
    number = len(task.train) // batch

    def batches(leaf: np.ndarray) -> Array:
        return jnp.asarray(leaf[: number * batch]).reshape(number, batch, *leaf.shape[1:])

    largest = np.asarray(net.space.largest())
    calibrated = calibrate(net, jnp.asarray(largest), jax.tree.map(batches, task.train.inputs), net.host(largest))
    for stage, statistics in zip(net.stages, calibrated, strict=True):
        stage.keep(statistics)
