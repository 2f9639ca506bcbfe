"""Scores populations on one split of a task, by any strategy: memory, host genes, metrics, the key of a measurement."""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from ctypes import CDLL
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.evaluation.base import OUT_OF_MEMORY, Calibration, KnownStatistics, Strategy
from nasjax.evaluation.blocks import Block, batches_per_block, blocks_by_step, even
from nasjax.evaluation.host_genes import by_host
from nasjax.evaluation.memory import Needs, plan
from nasjax.evaluation.mesh import everywhere, mesh, parted
from nasjax.evaluation.totals import Totals, metric_function
from nasjax.supernets import SuperNet
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Split, Task
from nasjax.tasks.augmentation import AUGMENTATIONS
from nasjax.types import Population

LOG = logging.getLogger(__name__)


class PopulationEvaluator:
    """Scores chunks of a population on one split: every metric of the task, with its standard error.

    `batch` is how many examples are scored at a time: the settings' batch, or what memory holds. `context` is all that the
    values depend on: not the strategy, nor the devices. Examples come in steps of `config.first_examples`, or in one of all.
    """

    def __init__(
        self,
        config: "StrategyConfig",
        net: SuperNet,
        task: Task,
        split: str,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.config, self.task, self.split = config, task, split
        self.metrics = tuple(objective.name for objective in task.objectives)
        self._net = nnx.eval_shape(lambda: net)
        self._mesh = mesh(devices)
        self._devices = 1 if self._mesh is None else self._mesh.size
        calibration = config.calibration(net, task)
        number = len(self._examples)
        self._step = min(config.first_examples or number, number)
        own = -(-self._step // self._devices)
        needed = -(-own // config.batch) * even(own, config.batch) * -(-number // self._step)
        planned = plan(config, config.needs(net), net, calibration, self._examples.inputs, needed)
        self.batch, self.chunk = even(own, planned.batch), planned.chunk
        self._calibration = everywhere(self._mesh, calibration)
        self._together, self._room = planned.chunk, planned.room
        self._each = batches_per_block(self._examples.inputs, own, self.batch, planned.room)
        self._strategy = config.strategy(net, task, planned.spare, self._mesh)
        self._described = metric_function(task)
        self.context: Mapping[str, Any] = {
            "weights": _digest(nnx.to_flat_state(nnx.state(net))),
            "network": [repr(net.space), *(stage.settings() for stage in net.stages)],
            "task": task.digest(),
            "split": split,
            "evaluator": self._value_settings(net),
        }

    def _value_settings(self, net: SuperNet) -> dict[str, Any]:
        """The settings that values depend on: those of re-calibration where there is any, others where they are used."""
        config = self.config
        names = ["batch", "calibration_examples", "seed"] if net.has_norms else []
        if config.first_examples:
            names += ["first_examples", "seed"]
        if net.has_norms and config.augmentation != "none":
            names.append("augmentation")
        return {name: getattr(config, name) for name in dict.fromkeys(names)}

    def on(self, split: str) -> "PopulationEvaluator":
        """The same on another split, within the same memory: programs, weights and calibration inputs are shared.

        This one's examples leave the device until they are wanted again.
        """
        self.__dict__.pop("_steps", None)
        self._strategy.forget()
        other = copy(self)
        other.split = split
        other.context = {**self.context, "split": split}
        return other

    def forget(self) -> None:
        """Clears cached activations and statistics: everything is computed again."""
        self._strategy.forget()

    def release(self) -> None:
        """Frees memory: examples leave the device, programs are dropped. Both come back when wanted."""
        self.__dict__.pop("_steps", None)
        self._strategy.release()
        # The few hundred megabytes that the compiler took and freed, glibc would keep for itself.
        if sys.platform.startswith("linux"):
            getattr(CDLL(None), "malloc_trim", int)(0)

    @property
    def shared(self) -> bool:
        """Whether devices of several processes compute."""
        return self._mesh is not None and self._mesh.is_multi_process

    @property
    def genes(self) -> int:
        """The number of genes of an architecture."""
        return len(self._net.space.genes)

    @property
    def _examples(self) -> Split:
        return getattr(self.task, self.split)

    @property
    def steps(self) -> int:
        """The number of steps that the examples come in."""
        return -(-len(self._examples) // self._step)

    def examples(self, steps: int) -> int:
        """The number of examples in the first `steps` steps."""
        return min(steps * self._step, len(self._examples))

    @cached_property
    def _steps(self) -> tuple[list[Block], list[int]]:
        """All blocks, and the number of blocks before each step; they stay on the devices where there is room for all."""
        split = self._examples
        order = np.random.default_rng(self.config.seed).permutation(len(split)) if self.config.first_examples else None
        by_step = blocks_by_step(split, self.batch, self._each * self._devices, self._step, order)
        blocks = [block for step in by_step for block in step]
        before = [0, *accumulate(map(len, by_step))]
        held = sum(leaf.nbytes for block in blocks for leaf in jax.tree.leaves(block.inputs))
        if len(blocks) > 1 and held > self._room * self._devices:
            return blocks, before
        return [parted(self._mesh, block) for block in blocks], before

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        """The batch-norm statistics that an architecture is measured with, full width, stage by stage."""
        if self._calibration is None:
            return tuple({} for _ in self._net.stages)
        return self._strategy.statistics(arch, self._calibration, self._net.host(np.asarray(arch)), self._together)

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures."""
        archs = np.asarray(archs, np.int32)
        check_chunk(archs, self.chunk)
        return self.described(self.totals(archs))

    def totals(
        self, archs: Population, start: int = 0, stop: int | None = None, known: KnownStatistics | None = None
    ) -> Totals:
        """The task's statistics summed over the examples of steps `start` to `stop`, for any number of architectures.

        Batch-norm statistics are put into `known` where it is given, and taken from there when it is given again.
        """
        blocks, before = self._steps
        part = slice(before[start], before[self.steps if stop is None else stop])
        rows, found = [], []
        for host, group in by_host(self._net, archs):
            rows.append(group)
            found.append(self._group_totals(archs[group], blocks, host, part, known))
        order = np.argsort(np.concatenate(rows))
        return Totals(*(np.concatenate(parts)[order] for parts in zip(*found, strict=True)))

    def described(self, totals: Totals) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, from a population's totals."""
        return self._described(totals)

    def _group_totals(
        self, archs: Population, blocks: list[Block], host: HostOptions, part: slice, known: KnownStatistics | None
    ) -> Totals:
        """`Strategy.totals` of any number of rows; half as many at once, from then on, where the device is out of memory."""
        found, start = [], 0
        while start < len(archs):
            rows = archs[start : start + self._together]
            try:
                found.append(self._strategy.totals(rows, self._calibration, blocks, host, self._together, part, known))
            except jax.errors.JaxRuntimeError as error:
                # Other processes could not know: they would wait for this one.
                if self._together == 1 or OUT_OF_MEMORY not in str(error) or jax.process_count() > 1:
                    raise
                half = self._together // 2
                LOG.warning("out of memory with %d sub-networks at once: from now on %d", self._together, half)
                self._together = half
                self._strategy.forget()
            else:
                start += len(rows)
        return Totals(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def check_chunk(archs: Population, chunk: int) -> None:
    """Raises ValueError for more architectures than an evaluator takes at once."""
    if len(archs) > chunk:
        raise ValueError(f"at most {chunk} architectures at once, not {len(archs)}; nasjax.evaluation.measure takes more")


def _digest(weights: Any) -> str:
    hashed = sha256()
    for path, leaf in weights:
        hashed.update(str((path, leaf[...].shape)).encode())
        hashed.update(np.ascontiguousarray(leaf[...]).data)
    return hashed.hexdigest()


@dataclass(frozen=True)
class EvaluatorConfig(ABC):
    """Settings of all evaluators.

    `batch` examples at a time, fewer to be scored where `memory_gb` does not hold them. The batch norms of every sub-network
    are re-calibrated on `calibration_examples` of the training examples, in whole batches, drawn with `seed`, after an
    `augmentation` (none, flip, crop: as the images were trained on); networks without batch norms ignore both. At most
    `chunk` sub-networks are measured and stored at once. All devices are used, each within `memory_gb`. With
    `first_examples` a search scores networks on so many examples first, drawn with `seed`, and the better half on twice as
    many each time, until these are all (`nasjax.evaluation.halving`); 0: all networks on all examples.
    """

    batch: int = 100
    calibration_examples: int = 300
    chunk: int = 16
    memory_gb: float = 4.0
    seed: int = 0
    first_examples: int = 0
    augmentation: str = "none"

    def __post_init__(self):
        for name in ("batch", "chunk", "memory_gb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"evaluator.{name} must be above 0, not {getattr(self, name)}")
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigError(f"evaluator.augmentation={self.augmentation!r} is none of {', '.join(AUGMENTATIONS)}")
        for name in ("first_examples", "calibration_examples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"evaluator.{name} must be at least 0, not {getattr(self, name)}")

    def calibration(self, net: SuperNet, task: Task) -> Calibration:
        """The training inputs that re-calibrate batch norms; whole batches only: a short one would count too much.

        None for a network without batch norms. Raises ConfigError where there are batch norms and no examples for them.
        """
        if not net.has_norms:
            return None
        if self.calibration_examples == 0:
            raise ConfigError("evaluator.calibration_examples must be above 0 for a super-network with batch norms")
        inputs, number = task.train.inputs, len(task.train)
        size = min(self.batch, number)
        batches = max(1, min(self.calibration_examples, number) // size)
        if batches * size != self.calibration_examples:
            message = "evaluator.calibration_examples=%d: %d are used, whole batches of %d out of %d training examples"
            LOG.info(message, self.calibration_examples, batches * size, size, number)
        rng = np.random.default_rng(self.seed)
        rows = rng.permutation(number)[: batches * size]

        def drawn(leaf: np.ndarray) -> np.ndarray:
            return AUGMENTATIONS[self.augmentation](rng, leaf[rows]).reshape(batches, size, *leaf.shape[1:])

        return jax.tree.map(drawn, inputs)

    @abstractmethod
    def bind(
        self, net: SuperNet, task: Task, split: str = "validation", devices: Sequence[jax.Device] | None = None
    ) -> PopulationEvaluator:
        """An evaluator of `net` on one split of the task, on `devices` (None: all that JAX has)."""


class StrategyConfig(EvaluatorConfig):
    """Settings of one strategy."""

    spreads: ClassVar[bool] = True
    """Whether several devices share the work."""

    def bind(
        self, net: SuperNet, task: Task, split: str = "validation", devices: Sequence[jax.Device] | None = None
    ) -> PopulationEvaluator:
        return PopulationEvaluator(self, net, task, split, devices if self.spreads else jax.local_devices()[:1])

    @abstractmethod
    def needs(self, net: SuperNet) -> Needs:
        """What this strategy takes of the memory."""

    @abstractmethod
    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> Strategy:
        """The strategy for a super-network; `spare`: bytes of the memory that are left; `mesh`: its devices."""
