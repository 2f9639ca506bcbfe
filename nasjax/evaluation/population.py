"""The population evaluator: scores populations on one split of a task, by any strategy, within memory."""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from ctypes import CDLL
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, ClassVar, Self

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from nasjax.errors import ConfigError
from nasjax.evaluation.base import OUT_OF_MEMORY, Calibration, KnownStatistics, Strategy
from nasjax.evaluation.blocks import Block, batches_per_block, blocks_by_step, even
from nasjax.evaluation.host_genes import by_host
from nasjax.evaluation.memory import Needs, decoding_bytes, plan
from nasjax.evaluation.mesh import mesh, replicate
from nasjax.evaluation.scoring import place
from nasjax.evaluation.totals import Totals, metric_function
from nasjax.supernets import SuperNet
from nasjax.supernets.checkpoints import weights_digest
from nasjax.supernets.forms import Forms, using
from nasjax.supernets.precision import network_in_bfloat16
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Split, Task
from nasjax.tasks.augmentation import AUGMENTATIONS
from nasjax.types import Population

LOG = logging.getLogger(__name__)

PRECISIONS = {"default": None, "float32": "highest", "bfloat16": None}
"""JAX's precision of products by the setting; None: the device's quickest, which rounds to TF32 on GPUs."""

CPU_GB, DEVICE_SHARE = 4.0, 0.5
"""The memory to use, in gigabytes, and as a share of what JAX may take on an accelerator."""

ACCELERATOR_BATCH = 1024
"""Examples that are scored at a time on accelerators, which wait for the next program after small ones. Not measured."""


class PopulationEvaluator:
    """Scores chunks of a population on one split: every metric of the task, with its standard error.

    `batch` is the number of examples scored at a time: the setting, or fewer to fit memory. `context` holds everything that
    the values depend on, which excludes the strategy and the devices. Examples come in steps of `config.first_examples`, or
    in a single step. `remark` is logged once something is evaluated: until then settings may turn out to be mistaken.
    """

    remark = ""

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
        computed = self._in_precision(net)
        self._devices = 1 if self._mesh is None else self._mesh.size
        calibration = config.calibration(net, task)
        number = len(self._examples)
        self._step = min(config.first_examples or number, number)
        per_device = -(-self._step // self._devices)
        most = config.scored_at_a_time
        needed = -(-per_device // most) * even(per_device, most) * -(-number // self._step)
        needs = config.needs(computed)
        decoding = decoding_bytes(net, self._examples.inputs, task.most_steps, task.beams) if task.most_steps > 1 else 0
        needs = needs._replace(example=needs.example + decoding)
        planned = plan(config, needs, net, calibration, self._examples.inputs, needed)
        self.batch, self.chunk = even(per_device, planned.batch), planned.chunk
        self._calibration = replicate(self._mesh, calibration)
        self._rows_at_once, self._room = planned.chunk, planned.room
        self._batches_per_block = batches_per_block(self._examples.inputs, per_device, self.batch, planned.room)
        self._strategy = config.strategy(computed, task, planned.spare, self._mesh)
        self._metrics = metric_function(task)
        self.context: Mapping[str, Any] = {
            "weights": weights_digest(net),
            "network": [repr(net.space), *(stage.settings() for stage in net.stages)],
            "task": task.digest(),
            "split": split,
            "evaluator": self._value_settings(net),
        }

    def _in_precision(self, net: SuperNet) -> SuperNet:
        """The network that is run."""
        return network_in_bfloat16(net) if self.config.precision == "bfloat16" else net

    @contextmanager
    def _traced(self) -> Iterator[None]:
        """Programs that are traced within multiply at the setting's precision, and have the settings' forms."""
        precision = PRECISIONS[self.config.precision]
        with using(self.config.forms), nullcontext() if precision is None else jax.default_matmul_precision(precision):
            yield

    def _value_settings(self, net: SuperNet) -> dict[str, Any]:
        """The settings that values depend on: of re-calibration, if there are batch norms, and of halving, if it is used."""
        config = self.config
        names = ["batch", "calibration_examples", "seed"] if net.has_norms else []
        if config.first_examples:
            names += ["first_examples", "seed"]
        if net.has_norms and config.augmentation != "none":
            names.append("augmentation")
        if config.precision != "default":
            names.append("precision")
        return {name: getattr(config, name) for name in dict.fromkeys(names)}

    def on(self, split: str) -> "PopulationEvaluator":
        """The same evaluator on another split: shares programs, weights, calibration inputs and memory.

        Removes this evaluator's examples from the devices; they return when it is used again.
        """
        self.__dict__.pop("_steps", None)
        self._strategy.forget()
        other = copy(self)
        other.split = split
        other.context = {**self.context, "split": split}
        return other

    def reweighted(self, net: SuperNet) -> "PopulationEvaluator":
        """The same evaluator of other weights of the network: shares programs and examples. Only `masked` and `switch`."""
        other = copy(self)
        other._strategy = self._strategy.reweighted(self._in_precision(net))  # type: ignore[attr-defined]
        other.context = {**self.context, "weights": weights_digest(net)}
        return other

    def forget(self) -> None:
        """Clears cached activations and statistics."""
        self._strategy.forget()

    def release(self) -> None:
        """Frees memory: removes examples from the devices and compiled programs; both return when needed."""
        self.__dict__.pop("_steps", None)
        self._strategy.release()
        # glibc does not return the few hundred megabytes that the compiler has freed.
        if sys.platform.startswith("linux"):
            getattr(CDLL(None), "malloc_trim", int)(0)

    @property
    def shared(self) -> bool:
        """Whether the devices belong to several processes."""
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
        """The number of steps that the examples are divided into."""
        return -(-len(self._examples) // self._step)

    def examples(self, steps: int) -> int:
        """The number of examples in the first `steps` steps."""
        return min(steps * self._step, len(self._examples))

    @cached_property
    def _steps(self) -> tuple[list[Block], list[int]]:
        """All blocks, and the number of blocks before each step; on the devices if all of them fit."""
        split = self._examples
        order = np.random.default_rng(self.config.seed).permutation(len(split)) if self.config.first_examples else None
        each = self._batches_per_block * self._devices
        by_step = blocks_by_step(split, self.batch, each, self._step, order, self._devices)
        blocks = [block for step in by_step for block in step]
        before = [0, *accumulate(map(len, by_step))]
        total_bytes = sum(leaf.nbytes for block in blocks for leaf in jax.tree.leaves(block.inputs))
        if len(blocks) > 1 and total_bytes > self._room * self._devices:
            return blocks, before
        return [place(self._mesh, block, self.task.on_host) for block in blocks], before

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        """The re-calibrated batch-norm statistics of an architecture, full width, stage by stage."""
        if self._calibration is None:
            return tuple({} for _ in self._net.stages)
        with self._traced():
            return self._strategy.statistics(arch, self._calibration, self._net.host(np.asarray(arch)), self._rows_at_once)

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures."""
        archs = np.asarray(archs, np.int32)
        check_chunk(archs, self.chunk)
        return self.described(self.totals(archs))

    def totals(
        self, archs: Population, start: int = 0, stop: int | None = None, known: KnownStatistics | None = None
    ) -> Totals:
        """The task's statistics summed over the examples of steps `start` to `stop`, for any number of architectures.

        Batch-norm statistics are stored in `known`, if given, and read from there in later calls.
        """
        if self.remark:
            LOG.info(self.remark)
            self.remark = ""
        blocks, before = self._steps
        part = slice(before[start], before[self.steps if stop is None else stop])
        rows, found = [], []
        for host, group in by_host(self._net, archs):
            rows.append(group)
            found.append(self._group_totals(archs[group], blocks, host, part, known))
        order = np.argsort(np.concatenate(rows))
        return Totals(*(np.concatenate(parts)[order] for parts in zip(*found, strict=True)))

    def described(self, totals: Totals) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of a population's totals."""
        return self._metrics(totals)

    def _group_totals(
        self, archs: Population, blocks: list[Block], host: HostOptions, part: slice, known: KnownStatistics | None
    ) -> Totals:
        """`Strategy.totals` of any number of rows; if a device runs out of memory, from then on half as many at once."""
        found, start = [], 0
        while start < len(archs):
            rows = archs[start : start + self._rows_at_once]
            try:
                with self._traced():
                    totals = self._strategy.totals(rows, self._calibration, blocks, host, self._rows_at_once, part, known)
                found.append(totals)
            except jax.errors.JaxRuntimeError as error:
                # Other processes would not retry, and wait for this one.
                if self._rows_at_once == 1 or OUT_OF_MEMORY not in str(error) or jax.process_count() > 1:
                    raise
                half = self._rows_at_once // 2
                LOG.warning("out of memory with %d sub-networks at once: continuing with %d", self._rows_at_once, half)
                self._rows_at_once = half
                self._strategy.forget()
            else:
                start += len(rows)
        return Totals(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def check_chunk(archs: Population, chunk: int) -> None:
    """Raises ValueError for more than `chunk` architectures."""
    if len(archs) > chunk:
        raise ValueError(f"at most {chunk} architectures at once, not {len(archs)}; nasjax.evaluation.measure takes more")


@dataclass(frozen=True)
class EvaluatorConfig(ABC):
    """Settings of all evaluators.

    Attributes:
      batch: examples in a batch, for re-calibration and scoring.
      scoring_batch: examples scored at a time, fewer if `memory_gb` is too small; null: `batch`, on accelerators 1024.
      calibration_examples: number of training examples that the batch norms of every sub-network are re-calibrated on, in
        whole batches; unused by networks without batch norms.
      chunk: the greatest number of sub-networks that are measured and stored at once.
      memory_gb: memory to use on each device, in gigabytes. null: 4, on accelerators half of what JAX may take there. All
        devices are used.
      seed: draws the calibration examples, and the order of examples for `first_examples`.
      first_examples: successive halving: a search scores all networks on so many examples first, and then repeatedly the
        better half on twice as many, up to all examples (`nasjax.evaluation.halving`). 0: all networks on all examples.
      augmentation: none, flip or crop, of the calibration images: as in training.
      precision: of a network's products and maps. default: float32, multiplied in the device's quickest way, which rounds to
        TF32 on GPUs; float32: multiplied in float32, as on a CPU; bfloat16: kernels, matrices and maps in 16 bits.
      one_pass: moments of re-calibration by one pass over the maps, on accelerators. Not measured yet.
      folded: kernels are multiplied by the gains of batch norms, instead of maps, when images are scored. Not measured yet.
    """

    batch: int = 100
    calibration_examples: int = 300
    chunk: int = 16
    memory_gb: float | None = None
    seed: int = 0
    first_examples: int = 0
    augmentation: str = "none"
    scoring_batch: int | None = None
    precision: str = "default"
    one_pass: bool = False
    folded: bool = False

    def __post_init__(self):
        for name in ("batch", "chunk", "memory_gb"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ConfigError(f"evaluator.{name} must be above 0, not {getattr(self, name)}")
        if self.scoring_batch is not None and self.scoring_batch < 1:
            raise ConfigError(f"evaluator.scoring_batch must be at least 1, not {self.scoring_batch}")
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigError(f"evaluator.augmentation={self.augmentation!r} must be one of {', '.join(AUGMENTATIONS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"evaluator.precision={self.precision!r} must be one of {', '.join(PRECISIONS)}")
        for name in ("first_examples", "calibration_examples"):
            if getattr(self, name) < 0:
                raise ConfigError(f"evaluator.{name} must be at least 0, not {getattr(self, name)}")

    @property
    def memory(self) -> float:
        """The memory to use on each device, in gigabytes."""
        if self.memory_gb is not None:
            return self.memory_gb
        device = jax.local_devices()[0]
        limit = None if device.platform == "cpu" else (device.memory_stats() or {}).get("bytes_limit")
        return CPU_GB if limit is None else DEVICE_SHARE * limit / 1e9

    @property
    def scored_at_a_time(self) -> int:
        """The examples to be scored at a time, where memory allows."""
        if self.scoring_batch is not None:
            return self.scoring_batch
        return self.batch if jax.default_backend() == "cpu" else max(self.batch, ACCELERATOR_BATCH)

    @property
    def forms(self) -> Forms:
        """The forms of layers."""
        return Forms(one_pass=self.one_pass, folded=self.folded)

    def expecting(self, networks: int | None) -> Self:
        """These settings for the evaluation of so many sub-networks, where that is known and makes a difference."""
        return self

    def calibration(self, net: SuperNet, task: Task) -> Calibration:
        """The training inputs for re-calibration, in whole batches, since a shorter one would have too much weight.

        None for a network without batch norms. Raises ConfigError for batch norms and `calibration_examples` of 0.
        """
        if not net.has_norms:
            return None
        if self.calibration_examples == 0:
            raise ConfigError("evaluator.calibration_examples must be above 0 for a super-network with batch norms")
        inputs, number = task.train.inputs, len(task.train)
        if self.augmentation != "none" and getattr(inputs, "ndim", 0) != 4:
            raise ConfigError(
                f"evaluator.augmentation={self.augmentation} is for images; this task has other inputs: say none"
            )
        size = min(self.batch, number)
        batches = max(1, min(self.calibration_examples, number) // size)
        if batches * size != self.calibration_examples:
            message = "evaluator.calibration_examples=%d: using %d, in whole batches of %d, of %d training examples"
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
    """Settings of one evaluation strategy."""

    spreads: ClassVar[bool] = True
    """Whether several devices share the work."""

    def bind(
        self, net: SuperNet, task: Task, split: str = "validation", devices: Sequence[jax.Device] | None = None
    ) -> PopulationEvaluator:
        return PopulationEvaluator(self, net, task, split, devices if self.spreads else jax.local_devices()[:1])

    @abstractmethod
    def needs(self, net: SuperNet) -> Needs:
        """The memory that this strategy takes."""

    @abstractmethod
    def strategy(self, net: SuperNet, task: Task, spare: float, mesh: Mesh | None = None) -> Strategy:
        """The strategy for a super-network; `spare`: bytes that it may use as a cache; `mesh`: its devices."""
