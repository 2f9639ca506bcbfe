"""The training loop of all methods."""

from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from nasjax.evaluation.calibration import calibrate_by_batches
from nasjax.hardware.costs import CostTable, cost_tables
from nasjax.jax_defaults import with_jax_defaults
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.supernets.precision import in_bfloat16, in_float32
from nasjax.tasks import Task
from nasjax.training import optimisers
from nasjax.training.base import FIXED, Phase, Step, TrainerConfig
from nasjax.training.batches import after, batches_of, buckets_of
from nasjax.training.losses import check_augmentation, check_divergence, losses_of, step_loss
from nasjax.types import PRNGKey

TrainingProgress = Callable[[int, int, float], None]
"""Called after every epoch with its number (from 1), the number of epochs and the mean loss."""


@with_jax_defaults
def train(config: TrainerConfig, net: SuperNet, task: Task, key: PRNGKey, progress: TrainingProgress) -> SuperNet:
    """A trained copy of `net`, with the batch-norm statistics of the largest sub-network.

    Raises DivergedError if the loss is not finite.
    """
    training = Training(config, net, task, key)
    last = training.begin()
    for state in training.run(last):
        last = state
        if training.ends_epoch(state):
            progress(training.epoch(state), config.epochs, state.loss)
    return training.network(last)


class DivergedError(ArithmeticError):
    """The loss is not finite. `state` is that of the last steps whose losses were."""

    def __init__(self, message: str, state: "TrainingState"):
        super().__init__(message)
        self.state = state


class TrainingState(NamedTuple):
    """How far a training is: weights, state of the optimiser, the fixed teacher's weights if any, how many steps are done.

    `loss` is the mean loss of the steps so far in the last epoch.
    """

    weights: Any
    optimised: Any
    teacher: Any
    steps: int
    loss: float


class Training:
    """One training of a network: what does not change from step to step.

    Whatever a step draws follows from the key and the step's number, so that a training that is continued from any of its
    states has the same weights as one that was never interrupted. `teacher`: a network whose outputs others learn from; a
    method may also take the network as it was before one of its phases (`TrainerConfig.fixes_teacher`).
    """

    def __init__(self, config: TrainerConfig, net: SuperNet, task: Task, key: PRNGKey, teacher: SuperNet | None = None):
        check_divergence(task, config.divergence())
        check_augmentation(task, config)
        self.config, self.task, self.key = config, task, key
        self.space: SearchSpace = net.space
        self.phases = config.phases(net)
        self._firsts = [0, *accumulate(phase.epochs for phase in self.phases)]
        self._buckets = buckets_of(task.train, config.batch, config.accumulate)
        self.steps_per_epoch = sum(bucket.steps for bucket in self._buckets)
        # `network` stores statistics in it.
        parts: Any = nnx.split(nnx.clone(net), nnx.Param, ...)  # type: ignore[misc]
        self._graph, self._weights, self._rest = parts
        self._fixes = any(config.fixes_teacher(self.phases, i) for i in range(len(self.phases)))
        self._teacher: Any = parts if self._fixes else None
        if teacher is not None:
            self._teacher = nnx.split(teacher, nnx.Param, ...)  # type: ignore[misc]
        self._mesh = mesh_for(config.batch // config.accumulate)
        self._run = jax.jit(self._steps, static_argnums=(0, 1))
        self._rates: dict[int, Float[np.ndarray, " steps"]] = {}

    @cached_property
    def _macs(self) -> CostTable:
        return cost_tables(nnx.eval_shape(lambda: nnx.merge(self._graph, self._weights, self._rest)))["macs"]

    def begin(self) -> TrainingState:
        """The state before the first step."""
        teacher = None if self._teacher is None else self._teacher[1]
        return TrainingState(self._weights, optimisers.begin(self.config, self._weights), teacher, 0, 0.0)

    def placed(self, state: TrainingState) -> TrainingState:
        """The state with its arrays on every device that the training uses."""
        if self._mesh is None:
            return state
        trees = jax.device_put(tuple(state[:3]), NamedSharding(self._mesh, PartitionSpec()))
        return TrainingState(trees[0], trees[1], trees[2], state.steps, state.loss)

    def run(self, state: TrainingState) -> Iterator[TrainingState]:
        """The states after every few steps, to the last; an epoch's end is always among them.

        Raises DivergedError if a loss is not finite.
        """
        state = self.placed(state)
        while state.steps < self.config.epochs * self.steps_per_epoch:
            done = state.steps % self.steps_per_epoch
            index = self.phase(state)
            if done == 0 and self.epoch(state) == self._firsts[index]:
                state = self._next_phase(state, index)
            phase, rates = self.phases[index], self._phase_rates(index)
            taught = state.teacher is not None and not (self._fixes and not self._has_teacher(index))
            batches = batches_of(self._buckets, jax.random.fold_in(self.key, self.epoch(state)))
            loss = state.loss * done
            for bucket, rows, keys in after(batches, done):
                first = state.steps - self._firsts[index] * self.steps_per_epoch
                weights, optimised, losses = self._run(
                    phase.kind, taught, state.weights, state.optimised, state.teacher, bucket.examples,
                    np.array(phase.least, np.int32), rows, keys, rates[first : first + len(rows)],
                )  # fmt: skip
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
                state = TrainingState(weights, optimised, state.teacher, state.steps + len(losses), loss / done)
                yield state

    def ends_epoch(self, state: TrainingState) -> bool:
        return state.steps % self.steps_per_epoch == 0

    def epoch(self, state: TrainingState) -> int:
        """The number of epochs that are done."""
        return state.steps // self.steps_per_epoch

    def phase(self, state: TrainingState) -> int:
        """The number of the phase that the next step belongs to, from 0."""
        return sum(self.epoch(state) >= first for first in self._firsts[1:-1])

    def rate(self, state: TrainingState) -> float:
        """The learning rate of the last step."""
        last = max(state.steps - 1, 0)
        index = self.phase(state._replace(steps=last))
        return float(self._phase_rates(index)[last - self._firsts[index] * self.steps_per_epoch])

    def unscored(self, state: TrainingState) -> SuperNet:
        """The network with these weights, and batch-norm statistics of none: evaluators re-calibrate it."""
        return nnx.merge(self._graph, optimisers.result(state.optimised, state.weights), self._rest)

    def network(self, state: TrainingState) -> SuperNet:
        """The network with these weights, and with the batch-norm statistics of the largest sub-network."""
        trained = self.unscored(state)
        store_statistics(trained, self.task, min(self.config.batch, len(self.task.train)))
        return trained

    def _has_teacher(self, index: int) -> bool:
        """Whether the network has become the fixed teacher before phase number `index`, or then."""
        return any(self.config.fixes_teacher(self.phases, i) for i in range(index + 1))

    def _phase_rates(self, index: int) -> Float[np.ndarray, " steps"]:
        if index not in self._rates:
            phase = self.phases[index]
            rates = optimisers.learning_rates(self.config, phase.epochs * self.steps_per_epoch)
            self._rates[index] = np.float32(phase.rate) * rates
        return self._rates[index]

    def _next_phase(self, state: TrainingState, index: int) -> TrainingState:
        """The state that phase number `index` begins with: the optimiser anew, units reordered, the teacher fixed.

        Before the first phase only the largest sub-network counts as trained.
        """
        largest = Phase(0, 1.0, tuple(map(int, np.array(self.space.counts) - 1)), self.phases[index].kind)
        weights = optimisers.result(state.optimised, state.weights)
        teacher = weights if self.config.fixes_teacher(self.phases, index) else state.teacher
        # A copy: reordering is in place.
        net = nnx.merge(self._graph, jax.tree.map(jnp.array, weights), self._rest)
        self.config.reorder(net, self.phases[index - 1] if index else largest, self.phases[index])
        reordered: Any = nnx.split(net, nnx.Param, ...)[1]  # type: ignore[misc]
        return self.placed(TrainingState(reordered, optimisers.begin(self.config, reordered), teacher, state.steps, 0.0))

    def _steps(
        self,
        kind: int,
        taught: bool,
        weights: Any,
        optimised: Any,
        teacher: Any,
        examples: PyTree,
        least: Int[Array, " genes"],
        rows: Int[Array, "steps batch"],
        keys: PRNGKey,
        rates: Float[Array, " steps"],
    ) -> tuple[Any, Any, Float[Array, " steps"]]:
        """Some steps of one bucket, one after the other."""
        net = nnx.merge(self._graph, weights, self._rest)
        gradients = [self._gradient_at(host, kind, taught, least) for host in net.all_hosts()]

        def step(carry: Any, drawn: Any) -> tuple[Any, Float[Array, ""]]:
            weights, optimised = carry
            rows, key, rate = drawn
            shift, sample = jax.random.split(key)
            inputs, targets = jax.tree.map(lambda leaf: leaf[rows], examples)
            inputs, targets = self.task.augment(shift, inputs, targets, self.config)
            inputs, targets = self._divided((inputs, targets))
            host = jax.random.randint(jax.random.fold_in(sample, 0), (), 0, len(gradients))
            value, gradient = lax.switch(host, gradients, weights, teacher, inputs, targets, sample)
            weights, optimised = optimisers.update(self.config, optimised, weights, gradient, rate)
            # An update that destroys the weights shows in no loss before the next step.
            finite = jnp.isfinite(optax.tree.norm(weights))
            return (weights, optimised), jnp.where(finite, value, jnp.nan)

        (weights, optimised), losses = lax.scan(step, (weights, optimised), (rows, keys, rates))
        return weights, optimised, losses

    def _divided(self, tree: PyTree) -> PyTree:
        """A batch divided among the devices; arrays without an axis of examples are on all."""
        if self._mesh is None:
            return tree

        def divided(leaf: Array) -> Array:
            by_rows = leaf.ndim and leaf.shape[0] % self._mesh.size == 0  # type: ignore[union-attr]
            spec = PartitionSpec("devices") if by_rows else PartitionSpec()
            return lax.with_sharding_constraint(leaf, NamedSharding(self._mesh, spec))  # type: ignore[arg-type]

        return jax.tree.map(divided, tree)

    def _gradient_at(
        self, host: Any, kind: int, taught: bool, least: Int[Array, " genes"]
    ) -> Callable[..., tuple[Float[Array, ""], PyTree]]:
        """Loss and gradient of a batch at some host options: the mean over the parts that it goes through in."""
        cast = self._cast

        def loss(weights: Any, teacher: Any, inputs: PyTree, targets: PyTree, key: PRNGKey) -> Float[Array, ""]:
            net = nnx.merge(self._graph, cast(weights), self._rest)
            prepared = cast(net.prepare(inputs, host))
            step = Step(
                net.space, key, least, kind, lambda archs: losses_of(net, self.task, prepared, targets, archs),
                lambda archs: self._macs.estimate(archs), taught,
            )  # fmt: skip
            subnets = self.config.subnets(step)
            fixed = None
            if FIXED in (*subnets.static_teachers, subnets.traced_teacher):
                fixed = self._teacher_outputs(teacher, prepared)
            return step_loss(net, self.task, prepared, targets, subnets, self.config.divergence(), fixed)

        gradient = jax.value_and_grad(loss)
        parts = self.config.accumulate
        if parts == 1:
            return gradient

        def accumulated(weights: Any, teacher: Any, inputs: PyTree, targets: PyTree, key: PRNGKey) -> Any:
            batch = len(jax.tree.leaves(targets)[0])

            def split(leaf: Array) -> Array:
                whole = leaf.ndim == 0 or len(leaf) != batch
                return jnp.stack([leaf] * parts) if whole else leaf.reshape(parts, batch // parts, *leaf.shape[1:])

            def add(total: Any, part: Any) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, gradient(weights, teacher, *part, key)), None

            zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, weights)
            total, _ = lax.scan(add, zero, jax.tree.map(split, (inputs, targets)))
            return jax.tree.map(lambda leaf: leaf / parts, total)

        return accumulated

    def _cast(self, tree: PyTree) -> PyTree:
        """Weights or inputs in the type that a step computes in."""
        precision = self.config.precision
        if precision == "float32" or (precision == "auto" and jax.default_backend() == "cpu"):
            return tree
        return in_bfloat16(tree)

    def _teacher_outputs(self, teacher: Any, inputs: PyTree) -> PyTree:
        graph, _, rest = self._teacher
        net = nnx.merge(graph, self._cast(teacher), rest)
        return lax.stop_gradient(in_float32(net.forward(inputs, tuple(map(int, net.space.largest())), None)[0]))


def mesh_for(batch: int) -> Mesh | None:
    """As many of the devices as divide a batch evenly; None for one."""
    devices = jax.local_devices()
    number = max(n for n in range(1, len(devices) + 1) if batch % n == 0)
    return None if number == 1 else Mesh(np.array(devices[:number]), ("devices",))


def store_statistics(net: SuperNet, task: Task, batch: int) -> None:
    """Stores the batch-norm statistics of the largest sub-network on the training examples; in place."""
    if not net.has_norms:
        return
    largest = np.asarray(net.space.largest())
    calibrated = calibrate_by_batches(net, jnp.asarray(largest), task.train.inputs, batch, net.host(largest))
    for stage, statistics in zip(net.stages, calibrated, strict=True):
        stage.keep(statistics)
