"""What a training method is: the sub-networks of each step, the weights of their losses, and their teachers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError
from nasjax.space import SearchSpace
from nasjax.supernets import SuperNet
from nasjax.tasks.divergences import Divergence
from nasjax.tasks.image_augmentation import Augmentation
from nasjax.training.optimisers import Optimisation
from nasjax.types import Population, PRNGKey

PRECISIONS = ("auto", "float32", "bfloat16")
"""The types that weights and activations have in a step; `auto` is bfloat16 on accelerators, float32 on CPUs."""

FIXED = -1
"""The teacher whose weights do not change: see `Training`."""


class Phase(NamedTuple):
    """A part of a training with a learning-rate schedule of its own.

    `epochs`: how many; `rate`: the factor of the learning rate; `least`: the least option index of every gene that
    sub-networks may have, as all options from there on are trained; `kind`: what a method tells its phases apart by.
    """

    epochs: int
    rate: float
    least: tuple[int, ...]
    kind: int = 0


class Step(NamedTuple):
    """What a method may choose the sub-networks of a step by; within jit.

    `least`: the least option index of every gene in this phase; `kind`: the phase's. `losses` scores architectures on the
    step's batch, without a gradient, and `macs` counts their multiply-accumulates, for ranking. `taught`: whether there is a
    teacher whose weights do not change.
    """

    space: SearchSpace
    key: PRNGKey
    least: Int[Array, " genes"]
    kind: int
    losses: Callable[[Population], Float[Array, " pop"]]
    macs: Callable[[Population], Float[Array, " pop"]]
    taught: bool

    def sample(self, number: int, key: PRNGKey | None = None) -> Int[Array, "traced genes"]:
        """Canonical architectures, every gene drawn uniformly from its options of this phase."""
        return jnp.asarray(self.space.sample_raw(self.key if key is None else key, number, self.least))


class Subnets(NamedTuple):
    """The sub-networks of one step: fixed architectures (`static`) and random ones (`traced`).

    A sub-network learns from the targets (teacher None), or from the outputs of its teacher: an index of `static`, or FIXED,
    beside whose outputs the targets count as much. `weights` are the weights of their losses, those of `static` first; they
    need not sum to 1.
    """

    static: tuple[tuple[int, ...], ...]
    static_teachers: tuple[int | None, ...]
    traced: Int[Array, "traced genes"]
    traced_teacher: int | None
    weights: tuple[float, ...]


def only_largest(step: Step) -> Subnets:
    """The largest, an extracted network's only one: on the targets, and on the fixed teacher's outputs if any."""
    none = jnp.zeros((0, len(step.space.genes)), jnp.int32)
    largest = tuple(map(int, step.space.largest()))
    return Subnets((largest,), (FIXED if step.taught else None,), none, None, (1.0,))


@dataclass(frozen=True)
class TrainerConfig(Optimisation, Augmentation, ABC):
    """Settings of all methods: those of the optimiser and of augmentation, and these.

    Every step draws one option of each host gene (such as an elastic resolution) for all its sub-networks.

    Attributes:
      epochs, batch: passes over the training examples, and examples a step.
      accumulate: a step's batch goes through in so many parts, for memory; batch norms use a part's statistics.
      precision: `bfloat16` computes in 16 bits, with weights in 32; `auto`: on accelerators only.
      watch: scores the largest, the smallest and a random sub-network while they are trained.
      alone, alone_epochs: so many random sub-networks are trained alone, too, for so many epochs each, and ranked against
        the super-network's.
    """

    epochs: int = 60
    batch: int = 90
    accumulate: int = 1
    precision: str = "auto"
    watch: bool = True
    alone: int = 0
    alone_epochs: int = 10

    def __post_init__(self):
        Optimisation.__post_init__(self)
        Augmentation.__post_init__(self)
        if self.alone < 0 or self.alone == 1:
            raise ConfigError(f"trainer.alone must be 0 (none) or at least 2, not {self.alone}")
        for name in ("epochs", "batch", "accumulate", "alone_epochs"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"trainer.{name} must be above 0, not {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"trainer.precision={self.precision} is unknown; allowed: {', '.join(PRECISIONS)}")
        if self.batch % self.accumulate:
            raise ConfigError(f"trainer.accumulate={self.accumulate} must divide trainer.batch={self.batch}")

    def divergence(self) -> Divergence | None:
        """How far a student's logits are from its teacher's; None: as the task's loss has it, by cross-entropy."""
        return None

    def advice(self, net: SuperNet) -> str:
        """What a person should know before `net` is trained so, on one line; usually nothing."""
        return ""

    def phases(self, net: SuperNet) -> tuple[Phase, ...]:
        """The parts of the training. Raises ConfigError for a network that the method cannot train."""
        return (Phase(self.epochs, 1.0, (0,) * len(net.space.genes)),)

    def fixes_teacher(self, phases: Sequence[Phase], index: int) -> bool:
        """Whether the network as it is before phase number `index` is the fixed teacher from then on."""
        return False

    def reorder(self, net: SuperNet, before: Phase, after: Phase) -> None:
        """Reorders a network's units between two phases, without changing its largest sub-network's outputs; in place."""
        return

    @abstractmethod
    def subnets(self, step: Step) -> Subnets:
        """The sub-networks of a step; called within jit."""
