"""Protocol of tasks: examples in three splits, metrics of a network's outputs, and a loss for training.

Metrics are functions of statistics that are summed over examples, so that batches, devices and processes can share the work:
accuracy is correct / examples, perplexity exp(nll / tokens), corpus BLEU a function of summed n-gram counts.
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
    """Examples: `inputs` and `targets` are arrays, or trees of arrays, batch first.

    Sequences of different lengths are padded to the longest; `bucket` then gives the padded length that each example needs,
    one of a few, since each is compiled once. Arrays whose second axis has the greatest of these lengths are cut to it.
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
    """One sub-network as evaluation passes it to a task."""

    def __call__(self, inputs: PyTree) -> PyTree:
        """The outputs of the last stage, batch first."""

    def encode(self, inputs: PyTree) -> PyTree:
        """The carry of the last stage that runs once for each example."""

    def step(self, tokens: PyTree, carry: PyTree) -> tuple[PyTree, PyTree]:
        """Runs the repeated stages once on `(tokens, carry)`; returns (outputs, carry)."""


@dataclass(frozen=True, eq=False)
class Task(ABC):
    """Examples and metrics: training on `train`, search on `validation`, final metrics on `test`.

    `origin` records the name and settings that the task was created with. A sub-class defines `objectives`, `statistics`,
    `metrics` and, for training, `loss`. With `on_host`, statistics are computed by NumPy on the host, else within jit.
    `steps` is the number of times that a network's repeated stages run for one example.
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
        """The metrics, with direction, unit and range; networks are compared by the first."""

    def outputs(self, run: Runner, inputs: PyTree) -> PyTree:
        """The outputs to be scored, batch first: the network's, or those decoded from them."""
        return run(inputs)

    @abstractmethod
    def statistics(self, outputs: PyTree, targets: PyTree) -> Float[Array | np.ndarray, "batch stats"]:
        """Additive statistics of every example."""

    @abstractmethod
    def metrics(self, totals: Float[Array | np.ndarray, " stats"]) -> Mapping[str, Float[Array, ""] | float]:
        """Every metric, from the sums of the statistics over examples; differentiable by JAX, for standard errors."""

    def loss(self, outputs: PyTree, targets: PyTree, teacher: PyTree | None = None) -> Float[Array, " batch"]:
        """The loss of every example: against `targets`, or against the outputs of a `teacher`."""
        raise ConfigError(f"the task {self.origin['name']} defines no loss: training needs one")

    def augment(self, key: PRNGKey, inputs: PyTree, shift: int) -> PyTree:
        """Augmented training inputs; images are shifted by up to `shift` pixels."""
        return inputs

    def changed(self, **fields: Any) -> Self:
        """A copy with other splits or another origin; does not call the constructor, which a sub-class may have changed."""
        other = copy(self)
        for name, value in fields.items():
            object.__setattr__(other, name, value)
        return other

    def check(self, net: SuperNet) -> None:
        """Raises ConfigError if inputs, outputs or targets do not fit the network."""
        given, wanted = (jax.tree.map(_type_and_axes, tree) for tree in (self.train.inputs, net.inputs(1)))
        if given != wanted:
            raise ConfigError(f"the task's inputs are {given}, but the super-network reads {wanted}")
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
        """A digest of the examples and the names of the metrics."""
        hashed = sha256(str([objective.name for objective in self.objectives]).encode())
        for name in SPLITS:
            split = getattr(self, name)
            for leaf in jax.tree.leaves((split.inputs, split.targets, split.bucket)):
                hashed.update(str((name, leaf.shape, str(leaf.dtype))).encode())
                hashed.update(np.ascontiguousarray(leaf).data)
        return hashed.hexdigest()


def _type_and_axes(leaf: Any) -> str:
    return f"{leaf.dtype} of {leaf.ndim} axes"
