"""Protocol of tasks: examples in three splits, metrics of a network's outputs, and a loss for training.

Metrics are functions of statistics that are summed over examples, so that batches, devices and processes can share the work:
accuracy is correct / examples, perplexity exp(nll / tokens), corpus BLEU a function of summed n-gram counts.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nasjax.errors import ConfigError, one_line
from nasjax.objectives import Objective
from nasjax.registry import IN_MEMORY
from nasjax.supernets import SuperNet
from nasjax.supernets.runner import Subnet
from nasjax.tasks.image_augmentation import Augmentation
from nasjax.tasks.image_files import ImageFiles
from nasjax.types import PRNGKey

SPLITS = ("train", "validation", "test")

UNDIGESTED = ("origin", "scale")
"""Fields that no measurement depends on."""


@dataclass(frozen=True, eq=False)
class Split:
    """Examples: `inputs` and `targets` are arrays, or trees of arrays, batch first.

    Sequences of different lengths are padded to the longest; `bucket` then gives the padded length that each example needs,
    one of a few, since each is compiled once. Arrays whose second axis has the greatest of these lengths are cut to it.
    Images may be `ImageFiles`, which are decoded as they are needed. `files` are those that `inputs` were read from, if any.
    """

    inputs: PyTree[Array | np.ndarray | ImageFiles]
    targets: PyTree[Array | np.ndarray]
    bucket: Int[np.ndarray, " n"] | None = None
    # Not of the constructor: a copy with other inputs (`dataclasses.replace`) has none.
    files: ImageFiles | None = field(default=None, init=False)

    @classmethod
    def of_files(cls, files: ImageFiles, targets: PyTree[Array | np.ndarray], in_memory: bool) -> "Split":
        """Images in files, decoded now or as they are needed. Equal files have equal digests either way."""
        inputs = files[:] if in_memory else files
        if isinstance(inputs, np.ndarray):
            inputs.flags.writeable = False  # The digest is that of the files.
        split = cls(inputs, targets)
        object.__setattr__(split, "files", files)
        return split

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.targets)[0])

    def trimmed(self, tree: PyTree, length: int | None) -> PyTree:
        """Arrays of inputs or targets, examples first, cut to the padded `length` of a bucket; None: as they are."""
        longest = max((leaf.shape[1] for leaf in jax.tree.leaves(self.inputs) if leaf.ndim > 1), default=0)
        return jax.tree.map(
            lambda leaf: leaf if length is None or leaf.ndim < 2 or leaf.shape[1] != longest else leaf[:, :length], tree
        )

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


@dataclass(eq=False)
class Task(ABC):
    """Examples and metrics: training on `train`, search on `validation`, final metrics on `test`.

    `origin` records the name and settings that the task was created with. A sub-class defines `objectives`, `statistics`,
    `metrics` and, for training, `loss`. With `on_host`, statistics are computed by NumPy on the host, else within jit.
    `steps` is the number of times that a network's repeated stages run for a mean example, `most_steps` for the longest, and
    `beams` for how many continuations at once.
    """

    train: Split
    validation: Split
    test: Split
    origin: Mapping[str, Any] = field(default_factory=lambda: IN_MEMORY, kw_only=True)

    on_host: ClassVar[bool] = False
    steps: ClassVar[int] = 1
    most_steps: ClassVar[int] = 1
    beams: ClassVar[int] = 1

    @property
    def signatures(self) -> Mapping[str, str]:
        """How metrics are computed, by name, in the words of the library that does: stored with results."""
        return {}

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

    def augment(self, key: PRNGKey, inputs: PyTree, targets: PyTree, settings: Augmentation) -> tuple[PyTree, PyTree]:
        """A batch's inputs and targets as they are trained on; `settings` are the trainer's."""
        return inputs, targets

    @property
    def augments(self) -> bool:
        """Whether the task has augmentations that settings choose."""
        return type(self).augment is not Task.augment

    def files(self) -> Mapping[str, bytes]:
        """Files that a deployed network needs of the task, by name, such as vocabularies."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What weights depend on besides the super-network: stored with trained ones (`SuperNet.facts`), as JSON."""
        return {}

    def cheaper(self) -> "Task | None":
        """The same examples with a first metric that costs less, for the first choice of successive halving; None: none."""
        return None

    def changed(self, **fields: Any) -> Self:
        """A copy with other splits or another origin; does not call the constructor, which a sub-class may have changed."""
        other = copy(self)
        for name, value in fields.items():
            object.__setattr__(other, name, value)
        return other

    def check(self, net: SuperNet) -> None:
        """Raises ConfigError, in one line, where examples, outputs, statistics, metrics or losses do not fit each other."""
        for name in SPLITS:
            self._check_split(name, net)
        run = Subnet(net, tuple(map(int, net.space.largest())), net.stored(), net.all_hosts()[-1])
        raw = self._shapes("outputs", run, self._first_examples(2).inputs)
        stats = [self._check_functions(run, raw, number) for number in (2, 3)]
        if stats[0] != stats[1]:
            raise ConfigError(f"{self._named}: statistics has {stats[0]} columns for two examples, {stats[1]} for three")

    @property
    def _named(self) -> str:
        """What messages call the task."""
        return f"task {self.origin.get('target') or self.origin['name']}"

    def _check_split(self, name: str, net: SuperNet) -> None:
        """Raises ConfigError for examples that are no arrays, of different number, none, or of other shapes than inputs."""
        split: Split = getattr(self, name)
        leaves = jax.tree.leaves((split.inputs, split.targets))
        if not leaves or not all(isinstance(leaf, np.ndarray | jax.Array | ImageFiles) and leaf.ndim for leaf in leaves):
            raise ConfigError(
                f"{self._named}: inputs and targets of {name} must be arrays, or trees of arrays, examples first"
            )
        if len({len(leaf) for leaf in leaves}) > 1 or not len(leaves[0]):
            numbers = ", ".join(str(len(leaf)) for leaf in leaves)
            raise ConfigError(
                f"{self._named}: the arrays of {name} must have one number of examples, above 0, not {numbers}"
            )
        rank_only = split.bucket is not None
        given, wanted = (
            jax.tree.map(lambda leaf: _type_and_axes(leaf, rank_only), tree) for tree in (split.inputs, net.inputs(1))
        )
        if given != wanted:
            raise ConfigError(f"{self._named}: its inputs are {given}, the super-network reads {wanted}")

    def _first_examples(self, number: int) -> Split:
        """Some training examples, repeated if there are fewer."""
        return self.train.take(np.resize(np.arange(len(self.train)), number))

    def _check_functions(self, run: Runner, raw: PyTree, number: int) -> int:
        """The number of statistics, from shapes alone. Raises ConfigError for a function that fails, or returns others.

        `raw`: shapes of the network's own outputs, for any number of examples: tracing a large network takes seconds.
        """
        examples = self._first_examples(number)
        raw = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((number, *leaf.shape[1:]), leaf.dtype), raw)
        outputs = raw
        if type(self).outputs is not Task.outputs:
            outputs = self._shapes("outputs", lambda inputs: self.outputs(run, inputs), examples.inputs)
        if self.on_host:  # NumPy's: it needs values.
            zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), outputs)
            stats: Any = self._tried("statistics", self.statistics, zeros, examples.targets)
        else:
            stats = self._shapes("statistics", self.statistics, outputs, examples.targets)
        if np.ndim(stats) != 2 or len(stats) != number:
            raise ConfigError(
                f"{self._named}: statistics must be (examples, stats), not {stats.shape} for {number} examples"
            )
        metrics = self._shapes("metrics", self.metrics, jax.ShapeDtypeStruct(stats.shape[1:], np.float32))
        missing = [objective.name for objective in self.objectives if np.shape(metrics.get(objective.name, [0])) != ()]
        if missing:
            raise ConfigError(f"{self._named}: metrics returns no number {missing[0]!r}, which is among its objectives")
        if type(self).loss is not Task.loss:
            for teacher in (None, raw):
                losses = self._shapes("loss", self.loss, raw, examples.targets, teacher)
                if losses.shape != (number,):
                    raise ConfigError(f"{self._named}: loss must be (examples,), not {losses.shape} for {number} examples")
        return stats.shape[1]

    def _shapes(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._tried(name, jax.eval_shape, function, *arguments)

    def _tried(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`. Raises ConfigError, with the reason on one line, where it fails."""
        try:
            return function(*arguments)
        except Exception as error:  # It may be a user's function, which raises whatever it likes.
            raise ConfigError(f"{self._named}: {name} failed ({one_line(error)})") from error

    def digest(self) -> str:
        """Names the task and its data: equal for equal examples, classes, settings and metrics.

        Images that come from files are named by the files' contents, whether they are held in memory or not.
        """
        own = {name: value for name, value in vars(self).items() if name not in (*SPLITS, *UNDIGESTED)}
        facts = (type(self).__module__, type(self).__qualname__, _source(type(self)), sorted(own.items()), self.steps,
                 self.on_host, [(objective.name, objective.direction) for objective in self.objectives],
                 self.origin.get("target"), self.origin.get("arguments"))  # fmt: skip
        hashed = sha256(repr(facts).encode())
        for name in SPLITS:
            split = getattr(self, name)
            inputs = split.inputs if split.files is None else split.files
            leaves, structure = jax.tree.flatten((inputs, split.targets, split.bucket))
            hashed.update(str(structure).encode())
            for leaf in leaves:
                hashed.update(str((name, leaf.shape, str(leaf.dtype))).encode())
                in_files = isinstance(leaf, ImageFiles)
                hashed.update(leaf.digest.encode() if in_files else np.ascontiguousarray(leaf).data)
        return hashed.hexdigest()


# Of a sub-class whose constructor does not say it.
Task.origin = IN_MEMORY


def _type_and_axes(leaf: Any, rank_only: bool) -> str:
    axes = f"{leaf.ndim} axes" if rank_only else f"(examples, {', '.join(map(str, leaf.shape[1:]))})"
    return f"{leaf.dtype} of {axes}"


def _source(task: type) -> str:
    """The code of a user's class, which its metrics depend on; empty for our own."""
    if task.__module__.partition(".")[0] == "nasjax":
        return ""
    try:
        return inspect.getsource(task)
    except (OSError, TypeError):
        return ""
