"""Tasks: examples in three splits, what a network's outputs are worth on them, and the loss that trains it.

Metrics are functions of statistics that add up over examples, so that any number of batches, devices and processes can share
the work: accuracy is correct / examples, perplexity exp(nll / tokens), corpus BLEU a function of summed n-gram counts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nasjax.errors import ConfigError
from nasjax.objectives import Objective
from nasjax.supernets import SuperNet
from nasjax.supernets.runner import Subnet
from nasjax.types import PRNGKey

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Examples: `inputs` and `targets` are arrays, or trees of arrays, with the examples in front.

    Sequences of different length are padded to the longest; `bucket` then says, for each example, the padded length that it
    needs: one of a few, since each compiles once. Arrays whose second axis is as long as the longest bucket are cut to it.
    """

    inputs: PyTree[Array | np.ndarray]
    targets: PyTree[Array | np.ndarray]
    bucket: Int[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.targets)[0])

    def take(self, rows: Any) -> "Split":
        """The examples of an index array or slice."""
        inputs, targets = jax.tree.map(lambda leaf: leaf[rows], (self.inputs, self.targets))
        return Split(inputs, targets, None if self.bucket is None else self.bucket[rows])


class Runner(Protocol):
    """One sub-network, made by each way of evaluation."""

    def __call__(self, inputs: PyTree) -> PyTree:
        """The outputs of the last stage, batch first."""

    def encode(self, inputs: PyTree) -> PyTree:
        """The carry behind the stages that run once for each example."""

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        """One run of the repeated stages on `(tokens, carry)`: the last one's (outputs, carry)."""


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """Examples and metrics: trained on `train`, searched on `validation`, reported on `test`.

    `origin` records how it was made: its name and settings. A sub-class gives `objectives`, `statistics`, `metrics` and, to
    be trained on, `loss`. With `on_host`, statistics are computed by NumPy from outputs brought to the host; else inside
    jit. `steps` is how many times the repeated stages of a network run for one example, where it has such.
    """

    train: Split
    validation: Split
    test: Split
    origin: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({"name": "in memory"}), kw_only=True)

    on_host: ClassVar[bool] = False
    steps: ClassVar[int] = 1

    @property
    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """The metrics, with direction, unit and range; the first is the one that networks are compared by."""

    def outputs(self, run: Runner, inputs: PyTree) -> PyTree:
        """What is scored, batch first: the network's outputs, or what is decoded from them."""
        return run(inputs)

    @abstractmethod
    def statistics(self, outputs: PyTree, targets: PyTree) -> Float[Array | np.ndarray, "batch stats"]:
        """Statistics of every example, to be added up."""

    @abstractmethod
    def metrics(self, totals: Float[Array | np.ndarray, " stats"]) -> Mapping[str, Float[Array, ""] | float]:
        """Every metric, from the sums of the statistics over examples; differentiable by JAX, for standard errors."""

    def loss(self, outputs: PyTree, targets: PyTree, teacher: PyTree | None = None) -> Float[Array, " batch"]:
        """The loss of every example; with a `teacher`, whose outputs these are, the loss against them
        instead of `targets`."""
        raise ConfigError(f"the task {self.origin['name']} has no loss: nothing can be trained on it")

    def augment(self, key: PRNGKey, inputs: PyTree, shift: int) -> PyTree:
        """Training inputs as a step sees them; images are moved by up to `shift` pixels."""
        return inputs

    def changed(self, **fields: Any) -> Self:
        """A copy with other splits or another origin; its constructor, which may be a sub-class's own, is not called."""
        other = copy(self)
        for name, value in fields.items():
            object.__setattr__(other, name, value)
        return other

    def check(self, net: SuperNet) -> None:
        """Raises ConfigError where inputs, outputs or targets do not fit the network."""
        given, wanted = (jax.tree.map(_described, tree) for tree in (self.train.inputs, net.inputs(1)))
        if given != wanted:
            raise ConfigError(f"the task's inputs are {given}, the super-network reads {wanted} (type and axes)")
        one = self.train.take(slice(1))
        run = Subnet(net, tuple(map(int, net.space.largest())), net.stored(), net.all_hosts()[-1])
        outputs = jax.eval_shape(lambda inputs: self.outputs(run, inputs), one.inputs)
        if not self.on_host:
            try:
                stats = jax.eval_shape(self.statistics, outputs, one.targets)
            except (TypeError, ValueError, IndexError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"the task's statistics do not fit the super-network's outputs {outputs}: {reason}"
                ) from error
            if stats.ndim != 2 or stats.shape[0] != 1:
                raise ConfigError(f"statistics must be (batch, stats), not {stats.shape} for a batch of one")

    def digest(self) -> str:
        """Names the task and its data: equal for equal examples and metrics."""
        hashed = sha256(str([objective.name for objective in self.objectives]).encode())
        for name in SPLITS:
            split = getattr(self, name)
            for leaf in jax.tree.leaves((split.inputs, split.targets, split.bucket)):
                hashed.update(str((name, leaf.shape, str(leaf.dtype))).encode())
                hashed.update(np.ascontiguousarray(leaf).data)
        return hashed.hexdigest()


def _described(leaf: Any) -> str:
    return f"{leaf.dtype} of {leaf.ndim} axes"
