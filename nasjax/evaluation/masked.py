"""Population evaluation by masking: `vmap` over traced choices, one set of weights shared by all."""

import sys
from collections.abc import Iterator, Mapping
from copy import copy
from ctypes import CDLL
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from nasjax.evaluation.calibration import calibrate
from nasjax.evaluation.resolution import by_resolution, resized
from nasjax.supernets.stage import Choice, Statistics, SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Population

PICTURES = 0.25
"""The share of the memory that the pictures to be scored may take at once."""

COMPILER = 55_000
"""Bytes that compiling a step takes; measured for full-size networks: 35,000 at 224 pixels, 53,000 at 32."""

KEPT = 0.4
"""The share of it that each further resolution takes: what its programs keep. Measured for MobileNetV3: 0.37."""

WHOLE = ("dot_general", "conv_general_dilated", "cond", "scan", "while")
"""The steps whose results stand in memory: XLA computes all between them on the way."""

ALIVE = 10
"""How many of the largest such results may be alive at once; a process on a CPU: 3 (ProxylessNAS) to 10 (ResNet50)."""

CPU_BYTES = 1.6e7
"""What the activations of a chunk may take on a CPU: more leave its caches, and kernels that differ are slow there."""


@dataclass(frozen=True)
class MaskedConfig:
    """Settings of the masked evaluator.

    `batch` pictures at a time, fewer to be scored where `memory_gb` does not hold them; `calibration_images` of the training
    pictures, in whole batches, re-calibrate the batch norms of every sub-network, drawn with `seed`. At most `chunk`
    sub-networks at once, fewer where the memory does not hold them or where fewer are quicker: full-size ones on a CPU run
    one by one.
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

    def bind(self, net: SuperNet, task: ImageClassification, split: str = "validation") -> "MaskedEvaluator":
        """An evaluator of `net` on one split of the task's pictures."""
        return MaskedEvaluator(self, net, task, split)


class MaskedEvaluator:
    """Scores chunks of a population on one split: metrics as means over pictures, with their standard errors.

    `batch` is how many pictures it scores at a time: the settings' batch, or what memory holds.
    """

    def __init__(self, config: MaskedConfig, net: SuperNet, task: ImageClassification, split: str):
        self.metrics = task.metrics
        self._task, self._split = task, split
        pictures = getattr(task, split)
        self._net = nnx.eval_shape(lambda: net)
        graph, self._weights = nnx.split(net)
        self._calibration = jnp.asarray(config.calibration(task))
        plan = _plan(config, net, self._calibration, len(pictures))
        self.batch, self.chunk = plan.batch, plan.chunk
        self._each = _batches(pictures.images, plan.batch, plan.room)
        self._calibrate = jax.jit(_calibrations(graph), static_argnames="size")
        self._score: Any = jax.jit(_scores(graph, task), static_argnames="size")
        self.context: Mapping[str, Any] = {
            "weights": _digest(nnx.to_flat_state(self._weights)),
            "network": [repr(net.space), *(stage.settings() for stage in net.stages)],
            "task": task.digest(),
            "split": split,
            "evaluator": {"kind": "masked", **asdict(config)},
        }

    def on(self, split: str) -> "MaskedEvaluator":
        """The same on another split, within the same memory: programs, weights and what re-calibrates are shared.

        This one's pictures leave the device until they are wanted again.
        """
        self.__dict__.pop("_blocks", None)
        other = copy(self)
        other._split = split
        other.context = {**self.context, "split": split}
        return other

    def release(self) -> None:
        """Makes room: the pictures leave the device, the programs that score are dropped. Both come back when wanted."""
        self.__dict__.pop("_blocks", None)
        self._score.clear_cache()
        # What the compiler took and freed, a few hundred megabytes, glibc would keep for itself.
        if sys.platform.startswith("linux"):
            getattr(CDLL(None), "malloc_trim", int)(0)

    @cached_property
    def _blocks(self) -> "list[Block]":
        pictures = getattr(self._task, self._split)
        return _blocks(pictures.images, pictures.labels, self.batch, self._each)

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        """The batch-norm statistics that an architecture is measured with, full width, stage by stage."""
        full = np.tile(np.asarray(arch, np.int32), (self.chunk, 1))
        found = self._calibrate(self._weights, full, self._calibration, size=self._net.resolution(full[0]))
        return jax.tree.map(lambda moment: moment[0], found)

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures.

        The chunk is always filled up, for each resolution: results then do not depend on how many are asked for.
        """
        archs = np.asarray(archs, np.int32)
        if len(archs) > self.chunk:
            raise ValueError(
                f"at most {self.chunk} architectures at once, not {len(archs)}; nasjax.subject.measure takes more"
            )
        sums, squares = (np.zeros((len(archs), len(self.metrics))) for _ in range(2))
        for size, rows in by_resolution(self._net, archs):
            full = np.concatenate([archs[rows], np.repeat(archs[rows[-1:]], self.chunk - len(rows), axis=0)])
            statistics = self._calibrate(self._weights, full, self._calibration, size=size)
            for block in self._blocks:
                found = self._score(self._weights, full, statistics, *block, size=size)
                sums[rows] += np.asarray(found[0], np.float64)[: len(rows)]
                squares[rows] += np.asarray(found[1], np.float64)[: len(rows)]
        number = len(getattr(self._task, self._split))
        mean = sums / number
        variance = np.maximum(squares / number - mean**2, 0)
        error = np.sqrt(variance / max(number - 1, 1))
        found = {name: mean[:, i] for i, name in enumerate(self.metrics)}
        return found | {f"{name}_se": error[:, i] for i, name in enumerate(self.metrics)}


def _calibrations(graph: nnx.GraphDef) -> Any:
    """(weights, archs, calibration pictures, size) -> statistics with the population in front."""

    def run(weights, archs, calibration, size):
        net = nnx.merge(graph, weights)
        return jax.vmap(lambda arch: calibrate(net, arch, calibration, size))(archs)

    return run


def _scores(graph: nnx.GraphDef, task: ImageClassification) -> Any:
    """(weights, archs, statistics, images, labels, counted, size) -> sums, sums of squares of the metrics (pop, metrics)."""

    def run(weights, archs, statistics, images, labels, counted, size):
        net = nnx.merge(graph, weights)

        def one(arch, statistics):
            def validate(totals, batch):
                pictures, classes, count = batch
                logits = net.forward(resized(pictures, size), arch, statistics)[0]
                scores = task.scores(logits, classes) * count[:, None]
                return (totals[0] + scores.sum(0), totals[1] + jnp.square(scores).sum(0)), None

            zero = jnp.zeros(len(task.metrics))
            return lax.scan(validate, (zero, zero), (images, labels, counted))[0]

        return jax.vmap(one)(archs, statistics)

    return run


Block = tuple[Array | np.ndarray, Array | np.ndarray, Array | np.ndarray]


def _batches(images: np.ndarray, size: int, room: float) -> int:
    """How many batches of `size` a block has, for blocks of at most `room` bytes: as even as can be, less to fill up."""
    batches = -(-len(images) // size)
    fit = int(max(1, room // (size * images[0].nbytes)))
    return -(-batches // -(-batches // fit))


def _blocks(images: np.ndarray, labels: np.ndarray, size: int, each: int) -> list[Block]:
    """Images, labels and which of them count, in blocks of `each` batches of `size`.

    What is missing to a whole block is filled up with zeros that do not count. Where one block holds all, it stays on the
    device; more than one are brought there in turn.
    """
    blocks: list[Block] = []
    for start in range(0, len(images), each * size):
        parts = images[start : start + each * size], labels[start : start + each * size]
        missing = each * size - len(parts[1])
        counted = np.concatenate([np.ones(len(parts[1]), np.float32), np.zeros(missing, np.float32)])
        filled = (np.concatenate([p, np.zeros((missing, *p.shape[1:]), p.dtype)]) if missing else p for p in parts)
        pictures, classes, count = (p.reshape(each, size, *p.shape[1:]) for p in (*filled, counted))
        blocks.append((pictures, classes, count))
    return [tuple(map(jnp.asarray, blocks[0]))] if len(blocks) == 1 else blocks  # type: ignore[list-item]


class Plan(NamedTuple):
    """How many pictures are scored at a time, how many sub-networks run at once, bytes for a block of pictures."""

    batch: int
    chunk: int
    room: float


def _plan(config: MaskedConfig, net: SuperNet, calibration: Array, pictures: int) -> Plan:
    """What fits the memory, `pictures` being there to be scored.

    Scores are means over pictures, so that fewer at a time change nothing but rounding; moments are those of a batch, which
    cannot be cut apart: raises ValueError where one network does not fit on a batch of `calibration`.
    """
    together = calibration.shape[1]
    picture = calibration[0, 0].nbytes
    each = network_bytes(net)
    # Masked weights are each sub-network's own; the library lays them out anew, and packs them.
    weights = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(net)))
    # Of what is compiled for one resolution a part stays while the others are.
    taken = calibration.nbytes + compiler_bytes(net) * (1 + KEPT * (max(1, len(net.resolutions)) - 1))
    free = config.memory_gb * 1e9 - taken - weights
    batch = int(min(config.batch, pictures, free // (each + picture), (free - together * each) // picture))
    if batch < 1:
        fits = int((free - picture) // each)
        advice = f"evaluator.batch={fits} does, or more memory" if fits > 0 else "nor on one; more memory does"
        raise ValueError(
            f"evaluator.memory_gb={config.memory_gb} does not hold one network on the evaluator.batch={together} pictures "
            f"that re-calibrate it together, which take {(together * each + picture + weights + taken) / 1e9:.2g}; {advice}"
        )
    activations = max(batch, together) * each
    everything = -(-pictures // batch) * batch * picture
    room = max(batch * picture, min(PICTURES * config.memory_gb * 1e9, free - activations, everything))
    fit = int((config.memory_gb * 1e9 - taken - room) // (activations + weights))
    quick = int(max(1, CPU_BYTES // activations)) if jax.default_backend() == "cpu" else fit
    return Plan(batch, max(1, min(config.chunk, fit, quick)), room)


def network_bytes(net: SuperNet) -> int:
    """Memory of the largest network for one picture: the picture and the ALIVE largest results of WHOLE steps."""
    picture = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(net.example()))
    return picture + sum(sorted(_whole(_jaxpr(net)), reverse=True)[:ALIVE])


def gradient_bytes(net: SuperNet) -> int:
    """Memory of a gradient of the largest network for one picture: twice the results of all WHOLE steps."""
    return 2 * sum(_whole(_jaxpr(net)))


def compiler_bytes(net: SuperNet) -> int:
    """What compiling takes beside: so much for every step, those within others included."""
    return COMPILER * _steps(_jaxpr(net))


def _jaxpr(net: SuperNet) -> Any:
    largest = jnp.asarray(net.space.largest())
    return jax.make_jaxpr(lambda x: net.forward(x, largest, net.stored())[0])(net.example()).jaxpr


def _steps(jaxpr: Any) -> int:
    return len(jaxpr.eqns) + sum(_steps(inner) for equation in jaxpr.eqns for inner in _inner(equation))


def _whole(jaxpr: Any) -> Iterator[int]:
    """Bytes of the result of every step of WHOLE."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in WHOLE:
            yield sum(prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
        else:
            for inner in _inner(equation):
                yield from _whole(inner)


def _inner(equation: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for parameter in equation.params.values():
        for value in parameter if type(parameter) is tuple else [parameter]:
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield inner


def _digest(weights: Any) -> str:
    hashed = sha256()
    for path, leaf in weights:
        hashed.update(str((path, leaf[...].shape)).encode())
        hashed.update(np.ascontiguousarray(leaf[...]).data)
    return hashed.hexdigest()
