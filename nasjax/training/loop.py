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
from nasjax.tasks import Task
from nasjax.training.batches import after, batches_of, buckets_of
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

        Raises DivergedError if the loss is not finite.
        """
        training = Training(self, net, task, key)
        last = training.begin()
        for state in training.run(last):
            last = state
            if training.ends_epoch(state):
                progress(training.epoch(state), self.epochs, state.loss)
        return training.network(last)


class DivergedError(ArithmeticError):
    """The loss is not finite. `state` is that of the last steps whose losses were."""

    def __init__(self, message: str, state: "TrainingState"):
        super().__init__(message)
        self.state = state


class TrainingState(NamedTuple):
    """How far a training is: weights, moments of the optimiser, and how many steps are done.

    `loss` is the mean loss of the steps so far in the last epoch.
    """

    weights: Any
    moments: Any
    steps: int
    loss: float


class Training:
    """One training of a network: what does not change from step to step.

    Whatever a step draws follows from the key and the step's number, so that a training that is continued from any of its
    states has the same weights as one that was never interrupted.
    """

    def __init__(self, config: TrainerConfig, net: SuperNet, task: Task, key: PRNGKey):
        self.config, self.task, self._key = config, task, key
        self._buckets = buckets_of(task.train, config.batch)
        self.steps_per_epoch = sum(bucket.steps for bucket in self._buckets)
        total = config.epochs * self.steps_per_epoch
        schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, total // 20, total)
        self._optimiser = optax.adamw(schedule, weight_decay=config.weight_decay)
        # `network` stores statistics in it.
        parts: Any = nnx.split(nnx.clone(net), nnx.Param, ...)  # type: ignore[misc]
        self._graph, self._weights, self._rest = parts
        self._run = jax.jit(self._steps)

    def begin(self) -> TrainingState:
        """The state before the first step."""
        return TrainingState(self._weights, self._optimiser.init(self._weights), 0, 0.0)

    def run(self, state: TrainingState) -> Iterator[TrainingState]:
        """The states after every few steps, to the last; an epoch's end is always among them.

        Raises DivergedError if a loss is not finite.
        """
        while state.steps < self.config.epochs * self.steps_per_epoch:
            done = state.steps % self.steps_per_epoch
            batches = batches_of(self._buckets, jax.random.fold_in(self._key, state.steps // self.steps_per_epoch))
            loss = state.loss * done
            for bucket, rows, keys in after(batches, done):
                weights, moments, losses = self._run(state.weights, state.moments, bucket.examples, rows, keys)
                try:
                    losses = np.asarray(losses)
                except KeyboardInterrupt:
                    jax.block_until_ready(weights)  # A process that ends while a program runs crashes.
                    raise
                if not np.isfinite(losses).all():
                    step, value = done + int(np.isfinite(losses).argmin()) + 1, losses[~np.isfinite(losses)][0]
                    where = f"epoch {self.epoch(state) + 1}, step {step} of {self.steps_per_epoch}"
                    raise DivergedError(f"the loss is {value} in {where}: reduce trainer.learning_rate", state)
                done += len(losses)
                loss += float(losses.sum())
                state = TrainingState(weights, moments, state.steps + len(losses), loss / done)
                yield state

    def ends_epoch(self, state: TrainingState) -> bool:
        return state.steps % self.steps_per_epoch == 0

    def epoch(self, state: TrainingState) -> int:
        """The number of epochs that are done."""
        return state.steps // self.steps_per_epoch

    def network(self, state: TrainingState) -> SuperNet:
        """The network with these weights, and with the batch-norm statistics of the largest sub-network."""
        trained = nnx.merge(self._graph, state.weights, self._rest)
        store_statistics(trained, self.task, min(self.config.batch, len(self.task.train)))
        return trained

    def _steps(
        self, weights: Any, moments: Any, examples: PyTree, rows: Int[Array, "steps batch"], keys: PRNGKey
    ) -> tuple[Any, Any, Float[Array, " steps"]]:
        """Some steps of one bucket, one after the other."""
        net = nnx.merge(self._graph, weights, self._rest)

        def gradient_at(host: Any) -> Callable[..., Any]:
            def loss(weights: Any, inputs: PyTree, targets: PyTree, key: PRNGKey) -> Float[Array, ""]:
                merged = nnx.merge(self._graph, weights, self._rest)
                subnets = self.config.subnets(merged.space, key)
                return step_loss(merged, self.task, merged.prepare(inputs, host), targets, subnets)

            return jax.value_and_grad(loss)

        gradients = [gradient_at(host) for host in net.all_hosts()]

        def step(carry: Any, drawn: Any) -> tuple[Any, Float[Array, ""]]:
            weights, moments = carry
            rows, key = drawn
            shift, sample = jax.random.split(key)
            inputs, targets = jax.tree.map(lambda leaf: leaf[rows], examples)
            augmented = self.task.augment(shift, inputs, self.config.shift)
            host = jax.random.randint(jax.random.fold_in(sample, 0), (), 0, len(gradients))
            value, gradient = lax.switch(host, gradients, weights, augmented, targets, sample)
            updates, moments = self._optimiser.update(gradient, moments, weights)
            return (optax.apply_updates(weights, updates), moments), value

        (weights, moments), losses = lax.scan(step, (weights, moments), (rows, keys))
        return weights, moments, losses


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
