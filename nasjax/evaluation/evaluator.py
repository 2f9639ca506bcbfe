"""What all ways of evaluation share: settings, pictures, the key of a measurement, what is done when memory ends."""

import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from ctypes import CDLL
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from nasjax.evaluation.memory import Needs, plan
from nasjax.evaluation.pictures import Block, batches, blocks
from nasjax.evaluation.resolution import by_resolution
from nasjax.supernets.stage import Choice, Statistics, SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Population

LOG = logging.getLogger(__name__)

FULL = "RESOURCE_EXHAUSTED"
"""What XLA's error begins with where a device is out of memory."""


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
    ) -> tuple[Float[np.ndarray, "pop metrics"], Float[np.ndarray, "pop metrics"]]:
        """Sums over all pictures of every metric and of its square, re-calibrated; at most `together` rows, of one size."""

    def forget(self) -> None:
        """Drops what it keeps of pictures and sub-networks."""

    def release(self) -> None:
        """Drops all that it keeps, programs too."""


@dataclass(frozen=True)
class EvaluatorConfig(ABC):
    """Settings that all ways have.

    `batch` pictures at a time, fewer to be scored where `memory_gb` does not hold them; `calibration_images` of the training
    pictures, in whole batches, re-calibrate the batch norms of every sub-network, drawn with `seed`. At most `chunk`
    sub-networks are measured and stored at once.
    """

    batch: int = 100
    calibration_images: int = 300
    chunk: int = 16
    memory_gb: float = 4.0
    seed: int = 0

    def __post_init__(self):
        for name in ("batch", "calibration_images", "chunk", "memory_gb"):
            if getattr(self, name) <= 0:
                raise ValueError(f"evaluator.{name} must be above 0, not {getattr(self, name)}")

    def calibration(self, task: ImageClassification) -> Float[np.ndarray, "batches batch h w c"]:
        """The training pictures that re-calibrate batch norms; whole batches only: a short one would count too much."""
        images = task.train.images
        size = min(self.batch, len(images))
        number = max(1, min(self.calibration_images, len(images)) // size)
        order = np.random.default_rng(self.seed).permutation(len(images))[: number * size]
        return images[order].reshape(number, size, *images.shape[1:])

    def bind(self, net: SuperNet, task: ImageClassification, split: str = "validation") -> "PopulationEvaluator":
        """An evaluator of `net` on one split of the task's pictures."""
        return PopulationEvaluator(self, net, task, split)

    @abstractmethod
    def needs(self, net: SuperNet) -> Needs:
        """What this way takes of the memory."""

    @abstractmethod
    def way(self, net: SuperNet, task: ImageClassification, spare: float) -> Way:
        """How sub-networks of a super-network are run; `spare`: bytes of the memory that are left."""


class PopulationEvaluator:
    """Scores chunks of a population on one split: metrics as means over pictures, with their standard errors.

    `batch` is how many pictures it scores at a time: the settings' batch, or what memory holds. `context` is all that the
    values depend on: not the way they are computed.
    """

    def __init__(self, config: EvaluatorConfig, net: SuperNet, task: ImageClassification, split: str):
        self.metrics = task.metrics
        self._task, self._split = task, split
        pictures = getattr(task, split)
        self._net = nnx.eval_shape(lambda: net)
        self._calibration = jnp.asarray(config.calibration(task))
        planned = plan(config, config.needs(net), net, self._calibration, len(pictures))
        self.batch, self.chunk = planned.batch, planned.chunk
        self._together = planned.chunk
        self._each = batches(pictures.images, planned.batch, planned.room)
        self._way = config.way(net, task, planned.spare)
        self.context: Mapping[str, Any] = {
            "weights": _digest(nnx.to_flat_state(nnx.state(net))),
            "network": [repr(net.space), *(stage.settings() for stage in net.stages)],
            "task": task.digest(),
            "split": split,
            "evaluator": {name: getattr(config, name) for name in ("batch", "calibration_images", "seed")},
        }

    def on(self, split: str) -> "PopulationEvaluator":
        """The same on another split, within the same memory: programs, weights and what re-calibrates are shared.

        This one's pictures leave the device until they are wanted again.
        """
        self.__dict__.pop("_blocks", None)
        self._way.forget()
        other = copy(self)
        other._split = split
        other.context = {**self.context, "split": split}
        return other

    def release(self) -> None:
        """Makes room: the pictures leave the device, the programs are dropped. Both come back when wanted."""
        self.__dict__.pop("_blocks", None)
        self._way.release()
        # What the compiler took and freed, a few hundred megabytes, glibc would keep for itself.
        if sys.platform.startswith("linux"):
            getattr(CDLL(None), "malloc_trim", int)(0)

    @cached_property
    def _blocks(self) -> list[Block]:
        pictures = getattr(self._task, self._split)
        return blocks(pictures.images, pictures.labels, self.batch, self._each)

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        """The batch-norm statistics that an architecture is measured with, full width, stage by stage."""
        size = self._net.resolution(np.asarray(arch))
        return self._way.statistics(arch, self._calibration, size, self._together)

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures."""
        archs = np.asarray(archs, np.int32)
        if len(archs) > self.chunk:
            raise ValueError(
                f"at most {self.chunk} architectures at once, not {len(archs)}; nasjax.subject.measure takes more"
            )
        sums, squares = (np.zeros((len(archs), len(self.metrics))) for _ in range(2))
        for size, rows in by_resolution(self._net, archs):
            sums[rows], squares[rows] = self._totals(archs[rows], size)
        number = len(getattr(self._task, self._split))
        mean = sums / number
        variance = np.maximum(squares / number - mean**2, 0)
        error = np.sqrt(variance / max(number - 1, 1))
        found = {name: mean[:, i] for i, name in enumerate(self.metrics)}
        return found | {f"{name}_se": error[:, i] for i, name in enumerate(self.metrics)}

    def _totals(self, archs: Population, size: int | None) -> tuple[np.ndarray, np.ndarray]:
        """`Way.totals` of any number of rows; half as many at once, from then on, where the device is out of memory."""
        parts, start = [], 0
        while start < len(archs):
            rows = archs[start : start + self._together]
            try:
                parts.append(self._way.totals(rows, self._calibration, self._blocks, size, self._together))
            except jax.errors.JaxRuntimeError as error:
                if self._together == 1 or FULL not in str(error):
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
