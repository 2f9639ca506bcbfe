"""The training loop of all methods; a method chooses the sub-networks of each step, their weights and teachers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
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
from nasjax.tasks import Task
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
    number = len(task.train)
    batch = min(config.batch, number)
    steps = number // batch
    total = config.epochs * steps
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, total // 20, total)
    optimiser = optax.adamw(schedule, weight_decay=config.weight_decay)
    graph, weights, rest = nnx.split(nnx.clone(net), nnx.Param, ...)  # type: ignore[misc]  # store_statistics writes
    examples = jax.tree.map(jnp.asarray, (task.train.inputs, task.train.targets))

    def gradient_at(host: Any) -> Callable[..., Any]:
        def loss(weights: Any, inputs: PyTree, targets: PyTree, key: PRNGKey) -> Float[Array, ""]:
            merged = nnx.merge(graph, weights, rest)
            return step_loss(merged, task, merged.prepare(inputs, host), targets, config.subnets(net.space, key))

        return jax.value_and_grad(loss)

    gradients = [gradient_at(host) for host in net.all_hosts()]

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

    @jax.jit
    def epoch(weights: Any, moments: Any, key: PRNGKey) -> tuple[Any, Any, Float[Array, ""]]:
        order, draws = jax.random.split(key)
        rows = jax.random.permutation(order, number)[: steps * batch].reshape(steps, batch)
        (weights, moments), losses = lax.scan(step, (weights, moments), (rows, jax.random.split(draws, steps)))
        return weights, moments, losses.mean()

    moments = optimiser.init(weights)
    for i in range(config.epochs):
        weights, moments, value = epoch(weights, moments, jax.random.fold_in(key, i))
        if not np.isfinite(value):
            raise FloatingPointError(f"the loss is {value} in epoch {i + 1}: reduce trainer.learning_rate")
        progress(i + 1, config.epochs, float(value))
    trained = nnx.merge(graph, weights, rest)
    store_statistics(trained, task, batch)
    return trained


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
