"""Population evaluation by masking: `vmap` over traced choices, one set of weights shared by all."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import prod
from typing import Any

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
"""The share of the memory that validation pictures may take at once."""

COMPILER = 50_000
"""Bytes that compiling a step takes; measured for full-size networks: 35,000 at most."""

ALIVE = 4
"""How many arrays as large as the widest may be alive at once; compiled for the CPU: 2.1 (ResNet50) to 2.7 (MobileNetV3)."""

CPU_BYTES = 3.2e7
"""What the activations of a chunk may take on a CPU: more leave its caches, and kernels that differ are slow there."""


@dataclass(frozen=True)
class MaskedConfig:
    """Settings of the masked evaluator.

    `batch` pictures at a time; `calibration_images` of the training pictures re-calibrate the batch norms of every
    sub-network, drawn with `seed`. At most `chunk` sub-networks at once, fewer where `memory_gb` does not hold them or
    where fewer are quicker: full-size ones on a CPU run one by one.
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
    """Scores chunks of a population on one split: metrics as means over pictures, with their standard errors."""

    def __init__(self, config: MaskedConfig, net: SuperNet, task: ImageClassification, split: str):
        self.metrics = task.metrics
        pictures = getattr(task, split)
        self._net = nnx.eval_shape(lambda: net)
        graph, self._weights = nnx.split(net)
        self._calibration = jnp.asarray(config.calibration(task))
        size = min(config.batch, len(pictures))
        self._blocks = _blocks(pictures.images, pictures.labels, size, PICTURES * config.memory_gb * 1e9)
        self._images = len(pictures)
        taken = self._calibration.nbytes + sum(part.nbytes for part in self._blocks[0])
        self.chunk = _chunk(config, net, max(size, self._calibration.shape[1]), taken)
        self._calibrate = jax.jit(_calibrations(graph), static_argnames="size")
        self._score = jax.jit(_scores(graph, task), static_argnames="size")
        self.context: Mapping[str, Any] = {
            "weights": _digest(nnx.to_flat_state(self._weights)),
            "network": [repr(net.space), *(stage.settings() for stage in net.stages)],
            "task": task.digest(),
            "split": split,
            "evaluator": {"kind": "masked", **asdict(config)},
        }

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
        mean = sums / self._images
        variance = np.maximum(squares / self._images - mean**2, 0)
        error = np.sqrt(variance / max(self._images - 1, 1))
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


def _blocks(images: np.ndarray, labels: np.ndarray, size: int, room: float) -> list[Block]:
    """Images, labels and which of them count, in blocks of batches of `size` that take at most `room` bytes.

    What is missing to a whole block is filled up with zeros that do not count. Where one block holds all, it stays on the
    device; more than one are brought there in turn.
    """
    batches = -(-len(images) // size)
    fit = int(max(1, room // (size * images[0].nbytes)))
    # As even as can be: less to fill up.
    each = -(-batches // -(-batches // fit))
    blocks: list[Block] = []
    for start in range(0, len(images), each * size):
        parts = images[start : start + each * size], labels[start : start + each * size]
        missing = each * size - len(parts[1])
        counted = np.concatenate([np.ones(len(parts[1]), np.float32), np.zeros(missing, np.float32)])
        filled = (np.concatenate([p, np.zeros((missing, *p.shape[1:]), p.dtype)]) if missing else p for p in parts)
        pictures, classes, count = (p.reshape(each, size, *p.shape[1:]) for p in (*filled, counted))
        blocks.append((pictures, classes, count))
    return [tuple(map(jnp.asarray, blocks[0]))] if len(blocks) == 1 else blocks  # type: ignore[list-item]


def _chunk(config: MaskedConfig, net: SuperNet, batch: int, taken: int) -> int:
    """How many sub-networks fit the memory that pictures, which take `taken` bytes, leave.

    Raises ValueError where not even one does: pictures that re-calibrate together cannot be cut apart.
    """
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(net)))
    # Masked weights are each sub-network's own, and the library's convolutions lay them out anew.
    activations = batch * network_bytes(net)
    held = activations + 2 * weights
    # What is compiled for one resolution stays while the others are.
    taken += compiler_bytes(net) * max(1, len(net.resolutions))
    fit = int((config.memory_gb * 1e9 - taken) // held)
    if fit < 1:
        pictures = int((config.memory_gb * 1e9 - taken - 2 * weights) * batch // activations)
        advice = f"evaluator.batch={pictures} does, or more memory" if pictures > 0 else "nor on one; more memory does"
        raise ValueError(
            f"evaluator.memory_gb={config.memory_gb} does not hold one network on evaluator.batch={batch} pictures, which "
            f"take {(held + taken) / 1e9:.2g}; {advice}"
        )
    quick = int(max(1, CPU_BYTES // activations)) if jax.default_backend() == "cpu" else fit
    return min(config.chunk, fit, quick)


def network_bytes(net: SuperNet) -> int:
    """Memory of the largest network for one picture: ALIVE times its widest step."""
    return ALIVE * max(map(_bytes, _jaxpr(net).eqns))


def compiler_bytes(net: SuperNet) -> int:
    """What compiling takes beside: so much for every step, those within others included."""
    return COMPILER * _steps(_jaxpr(net))


def _jaxpr(net: SuperNet) -> Any:
    largest = jnp.asarray(net.space.largest())
    return jax.make_jaxpr(lambda x: net.forward(x, largest, net.stored())[0])(net.example()).jaxpr


def _steps(jaxpr: Any) -> int:
    inner = [getattr(v, "jaxpr", v) for e in jaxpr.eqns for p in e.params.values() for v in (p if type(p) is tuple else [p])]
    return len(jaxpr.eqns) + sum(_steps(part) for part in inner if hasattr(part, "eqns"))


def _bytes(equation: Any) -> int:
    return sum(prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)


def _digest(weights: Any) -> str:
    hashed = sha256()
    for path, leaf in weights:
        hashed.update(str((path, leaf[...].shape)).encode())
        hashed.update(np.ascontiguousarray(leaf[...]).data)
    return hashed.hexdigest()
