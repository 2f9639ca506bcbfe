"""What all ways of evaluation share: settings, pictures, the key of a measurement, what is done when memory ends."""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from ctypes import CDLL
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nasjax.errors import ConfigError
from nasjax.evaluation.blocks import Block, batches, blocks, even
from nasjax.evaluation.host_genes import by_resolution
from nasjax.evaluation.memory import Needs, plan
from nasjax.evaluation.mesh import everywhere, mesh, parted
from nasjax.supernets.stage import Choice, Statistics, SuperNet
from nasjax.tasks import ImageClassification
from nasjax.tasks.augmentation import AUGMENTATIONS
from nasjax.tasks.classification import Split
from nasjax.types import Population

LOG = logging.getLogger(__name__)

FULL = "RESOURCE_EXHAUSTED"
"""What XLA's error begins with where a device is out of memory."""


ALL = slice(None)

STOP, SUMS, STATISTICS = range(3)
"""What an evaluator announces."""

Found = dict[Any, Any]
"""Batch-norm statistics found: (size, architecture) -> statistics, as one likes to keep them."""


class Way(Protocol):
    """A way of running sub-networks: which computations are shared, and what is compiled. All ways answer alike."""

    def statistics(
        self, arch: Choice, calibration: Float[Array, "batches batch h w c"], size: int | None, together: int
    ) -> tuple[Statistics, ...]:
        """The batch-norm statistics of one sub-network, full width, stage by stage."""

    def totals(
        self,
        archs: Population,
        calibration: Float[Array, "batches batch h w c"],
        blocks: Sequence[Block],
        size: int | None,
        together: int,
        part: slice = ALL,
        kept: Found | None = None,
    ) -> tuple[Float[np.ndarray, "pop metrics"], Float[np.ndarray, "pop metrics"]]:
        """Sums over the pictures of `part` of the blocks of every metric and of its square, re-calibrated.

        At most `together` rows, of one size. What is found for re-calibration may be put into `kept`, and taken from there.
        """

    def forget(self) -> None:
        """Drops what it keeps of pictures and sub-networks."""

    def release(self) -> None:
        """Drops all that it keeps, programs too."""


@dataclass(frozen=True)
class EvaluatorConfig(ABC):
    """Settings that all evaluators have.

    `batch` pictures at a time, fewer to be scored where `memory_gb` does not hold them; `calibration_images` of the training
    pictures, in whole batches, re-calibrate the batch norms of every sub-network, drawn with `seed`, after an `augmentation`
    (none, flip, crop: as they were trained). At most `chunk` sub-networks are measured and stored at once. All devices are
    used, each within `memory_gb`. With `first_pictures` a
    search scores networks on so many pictures first, drawn with `seed`, and the better half on twice as many each time,
    until these are all (`nasjax.evaluation.halving`); 0: all networks on all pictures.
    """

    batch: int = 100
    calibration_images: int = 300
    chunk: int = 16
    memory_gb: float = 4.0
    seed: int = 0
    first_pictures: int = 0
    augmentation: str = "none"

    def __post_init__(self):
        for name in ("batch", "calibration_images", "chunk", "memory_gb"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"evaluator.{name} must be above 0, not {getattr(self, name)}")
        if self.augmentation not in AUGMENTATIONS:
            raise ConfigError(f"evaluator.augmentation={self.augmentation!r} is none of {', '.join(AUGMENTATIONS)}")
        if self.first_pictures < 0:
            raise ConfigError(f"evaluator.first_pictures must be at least 0, not {self.first_pictures}")

    def calibration(self, task: ImageClassification) -> Float[np.ndarray, "batches batch h w c"]:
        """The training pictures that re-calibrate batch norms; whole batches only: a short one would count too much."""
        images = task.train.images
        size = min(self.batch, len(images))
        number = max(1, min(self.calibration_images, len(images)) // size)
        if number * size != self.calibration_images:
            words = "evaluator.calibration_images=%d: %d are used, whole batches of %d out of %d training pictures"
            LOG.info(words, self.calibration_images, number * size, size, len(images))
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(images))[: number * size]
        return AUGMENTATIONS[self.augmentation](rng, images[order]).reshape(number, size, *images.shape[1:])

    @abstractmethod
    def bind(
        self,
        net: SuperNet,
        task: ImageClassification,
        split: str = "validation",
        devices: Sequence[jax.Device] | None = None,
    ) -> "PopulationEvaluator":
        """An evaluator of `net` on one split of the task's pictures, on `devices` (None: all that JAX has)."""


class WayConfig(EvaluatorConfig):
    """Settings of one way of evaluation."""

    spreads: ClassVar[bool] = True
    """Whether several devices share the work."""

    def bind(
        self,
        net: SuperNet,
        task: ImageClassification,
        split: str = "validation",
        devices: Sequence[jax.Device] | None = None,
    ) -> "PopulationEvaluator":
        return PopulationEvaluator(self, net, task, split, devices if self.spreads else jax.local_devices()[:1])

    @abstractmethod
    def needs(self, net: SuperNet) -> Needs:
        """What this way takes of the memory."""

    @abstractmethod
    def way(self, net: SuperNet, task: ImageClassification, spare: float, mesh: Mesh | None = None) -> Way:
        """How sub-networks of a super-network are run; `spare`: bytes of the memory that are left; `mesh`: its devices."""


class PopulationEvaluator:
    """Scores chunks of a population on one split: metrics as means over pictures, with their standard errors.

    `batch` is how many pictures it scores at a time: the settings' batch, or what memory holds. `context` is all that the
    values depend on: not the way they are computed, nor the devices. Pictures come in `steps` of `config.first_pictures`, or
    in one of all.
    """

    def __init__(
        self,
        config: WayConfig,
        net: SuperNet,
        task: ImageClassification,
        split: str,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.config, self.metrics = config, task.metrics
        # Told what is computed next, where processes share the work (`nasjax.evaluation.processes`).
        self.announce: Callable[..., None] = lambda *call: None
        self._task, self.split = task, split
        pictures = getattr(task, split)
        self._net = nnx.eval_shape(lambda: net)
        self._mesh = mesh(devices)
        self._devices = 1 if self._mesh is None else self._mesh.size
        calibration = config.calibration(task)
        self._step = min(config.first_pictures or len(pictures), len(pictures))
        own = -(-self._step // self._devices)
        needed = -(-own // config.batch) * even(own, config.batch) * -(-len(pictures) // self._step)
        planned = plan(config, config.needs(net), net, calibration, needed)
        self.batch, self.chunk = even(own, planned.batch), planned.chunk
        self._calibration = everywhere(self._mesh, calibration)
        self._together, self._room = planned.chunk, planned.room
        self._each = batches(pictures.images[:own], self.batch, planned.room)
        self._way = config.way(net, task, planned.spare, self._mesh)
        told = {"first_pictures": 0, "augmentation": "none"}
        settings = (
            "batch",
            "calibration_images",
            "seed",
            *(name for name, off in told.items() if getattr(config, name) != off),
        )
        self.context: Mapping[str, Any] = {
            "weights": _digest(nnx.to_flat_state(nnx.state(net))),
            "network": [repr(net.space), *(stage.settings() for stage in net.stages)],
            "task": task.digest(),
            "split": split,
            "evaluator": {name: getattr(config, name) for name in settings},
        }

    def on(self, split: str) -> "PopulationEvaluator":
        """The same on another split, within the same memory: programs, weights and what re-calibrates are shared.

        This one's pictures leave the device until they are wanted again.
        """
        self.__dict__.pop("_blocks", None)
        self._way.forget()
        other = copy(self)
        other.split = split
        other.context = {**self.context, "split": split}
        return other

    def forget(self) -> None:
        """Drops what is kept of sub-networks: everything is computed again."""
        self._way.forget()

    def release(self) -> None:
        """Makes room: the pictures leave the device, the programs are dropped. Both come back when wanted."""
        self.__dict__.pop("_blocks", None)
        self._way.release()
        # What the compiler took and freed, a few hundred megabytes, glibc would keep for itself.
        if sys.platform.startswith("linux"):
            getattr(CDLL(None), "malloc_trim", int)(0)

    @property
    def shared(self) -> bool:
        """Whether devices of several processes compute."""
        return self._mesh is not None and self._mesh.is_multi_process

    @property
    def genes(self) -> int:
        """How many an architecture has."""
        return len(self._net.space.genes)

    @property
    def _pictures(self) -> Split:
        return getattr(self._task, self.split)

    @property
    def steps(self) -> int:
        """How many steps the pictures come in."""
        return -(-len(self._pictures) // self._step)

    def pictures(self, steps: int) -> int:
        """How many pictures the first so many steps have."""
        return min(steps * self._step, len(self._pictures))

    @cached_property
    def _blocks(self) -> list[Block]:
        """They stay on the devices where there is room for all; else they are brought there in turn."""
        split = self._pictures
        order = np.random.default_rng(self.config.seed).permutation(len(split)) if self.config.first_pictures else None
        found = blocks(split.images, split.labels, self.batch, self._each * self._devices, self._step, order)
        if len(found) > 1 and sum(block[0].nbytes for block in found) > self._room * self._devices:
            return found
        return [parted(self._mesh, block) for block in found]

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        """The batch-norm statistics that an architecture is measured with, full width, stage by stage."""
        self.announce(STATISTICS, self.split, [arch])
        size = self._net.resolution(np.asarray(arch))
        return self._way.statistics(arch, self._calibration, size, self._together)

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures."""
        archs = np.asarray(archs, np.int32)
        if len(archs) > self.chunk:
            raise ConfigError(
                f"at most {self.chunk} architectures at once, not {len(archs)}; nasjax.searches.problem.measure takes more"
            )
        return self.described(*self.sums(archs), len(self._pictures))

    def sums(
        self, archs: Population, start: int = 0, stop: int | None = None, kept: Found | None = None
    ) -> tuple[Float[np.ndarray, "pop metrics"], Float[np.ndarray, "pop metrics"]]:
        """Sums of every metric and of its square over the pictures of steps `start` to `stop`, for any number of rows.

        With `kept`, a dict, what re-calibration found is put there, and taken from there when it is given again.
        """
        self.announce(SUMS, self.split, archs, start, -1 if stop is None else stop, int(kept is not None))
        sums, squares = (np.zeros((len(archs), len(self.metrics))) for _ in range(2))
        each = -(-self._step // (self._each * self._devices * self.batch))
        part = slice(start * each, None if stop is None else stop * each)
        for size, rows in by_resolution(self._net, archs):
            sums[rows], squares[rows] = self._totals(archs[rows], size, part, kept)
        return sums, squares

    def described(
        self,
        sums: Float[np.ndarray, "pop metrics"],
        squares: Float[np.ndarray, "pop metrics"],
        number: int | Int[np.ndarray, "pop 1"],
    ) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics as means over `number` pictures, and `<metric>_se`, from sums over them."""
        mean = sums / number
        variance = np.maximum(squares / number - mean**2, 0)
        error = np.sqrt(variance / np.maximum(number - 1, 1))
        found = {name: mean[:, i] for i, name in enumerate(self.metrics)}
        return found | {f"{name}_se": error[:, i] for i, name in enumerate(self.metrics)}

    def _totals(self, archs: Population, size: int | None, part: slice, kept: Found | None) -> tuple[np.ndarray, np.ndarray]:
        """`Way.totals` of any number of rows; half as many at once, from then on, where the device is out of memory."""
        parts, start = [], 0
        while start < len(archs):
            rows = archs[start : start + self._together]
            try:
                parts.append(self._way.totals(rows, self._calibration, self._blocks, size, self._together, part, kept))
            except jax.errors.JaxRuntimeError as error:
                # Other processes could not know: they would wait for this one.
                if self._together == 1 or FULL not in str(error) or jax.process_count() > 1:
                    raise
                LOG.warning(
                    "out of memory with %d sub-networks at once: from now on %d", self._together, self._together // 2
                )
                self._together //= 2
                self._way.forget()
            else:
                start += len(rows)
        sums, squares = zip(*parts, strict=True)
        return np.concatenate(sums), np.concatenate(squares)


def _digest(weights: Any) -> str:
    hashed = sha256()
    for path, leaf in weights:
        hashed.update(str((path, leaf[...].shape)).encode())
        hashed.update(np.ascontiguousarray(leaf[...]).data)
    return hashed.hexdigest()
