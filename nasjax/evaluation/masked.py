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
from nasjax.supernets.stage import SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Population


@dataclass(frozen=True)
class MaskedConfig:
    """Settings of the masked evaluator.

    `batch` pictures at a time; `calibration_images` of the training pictures re-calibrate the batch norms of every
    sub-network, drawn with `seed`. At most `chunk` sub-networks at once, fewer where `memory_gb` does not hold them.
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
        graph, self._weights = nnx.split(net)
        self._calibration = jnp.asarray(config.calibration(task))
        self._batches = _padded_batches(pictures.images, pictures.labels, config.batch)
        self._images = len(pictures)
        self.chunk = _chunk(config, net)
        self._score = jax.jit(_scores(graph, task))
        self.context: Mapping[str, Any] = {
            "weights": _digest(nnx.to_flat_state(self._weights)),
            "network": repr(net.space),
            "task": task.digest(),
            "split": split,
            "evaluator": {"kind": "masked", **asdict(config)},
        }

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures.

        The chunk is always filled up: results then do not depend on how many are asked for.
        """
        archs = np.asarray(archs, np.int32)
        full = np.concatenate([archs, np.repeat(archs[-1:], self.chunk - len(archs), axis=0)])
        sums, squares = self._score(self._weights, full, self._calibration, *self._batches)
        mean = np.asarray(sums, np.float64)[: len(archs)] / self._images
        variance = np.maximum(np.asarray(squares, np.float64)[: len(archs)] / self._images - mean**2, 0)
        error = np.sqrt(variance / max(self._images - 1, 1))
        found = {name: mean[:, i] for i, name in enumerate(self.metrics)}
        return found | {f"{name}_se": error[:, i] for i, name in enumerate(self.metrics)}


def _scores(graph: nnx.GraphDef, task: ImageClassification) -> Any:
    """(weights, archs, calibration, images, labels, counted) -> sums and sums of squares of every metric, (pop, metrics)."""

    def score(weights, archs, calibration, images, labels, counted):
        net = nnx.merge(graph, weights)

        def one(arch):
            statistics = calibrate(net, arch, calibration)

            def validate(totals, batch):
                pictures, classes, count = batch
                scores = task.scores(net.forward(pictures, arch, statistics)[0], classes) * count[:, None]
                return (totals[0] + scores.sum(0), totals[1] + jnp.square(scores).sum(0)), None

            zero = jnp.zeros(len(task.metrics))
            return lax.scan(validate, (zero, zero), (images, labels, counted))[0]

        return jax.vmap(one)(archs)

    return score


def _padded_batches(images: np.ndarray, labels: np.ndarray, size: int) -> tuple[Array, Array, Array]:
    """Images, labels and which of them count, in batches of `size`; the last is filled up with zeros that do not count."""
    number = -(-len(images) // size)
    missing = number * size - len(images)
    counted = np.concatenate([np.ones(len(images), np.float32), np.zeros(missing, np.float32)])
    images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
    labels = np.concatenate([labels, np.zeros(missing, labels.dtype)])
    shaped = (part.reshape(number, size, *part.shape[1:]) for part in (images, labels, counted))
    return tuple(map(jnp.asarray, shaped))  # type: ignore[return-value]


def _chunk(config: MaskedConfig, net: SuperNet) -> int:
    """How many sub-networks fit the memory: by the widest step of the largest network, its input and output alive."""
    largest = jnp.asarray(net.space.largest())
    jaxpr = jax.make_jaxpr(lambda x: net.forward(x, largest, net.stored())[0])(net.inputs(config.batch)).jaxpr
    held = 4 * max(_bytes(equation) for equation in jaxpr.eqns)
    return int(max(1, min(config.chunk, config.memory_gb * 1e9 // held)))


def _bytes(equation: Any) -> int:
    return sum(prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)


def _digest(weights: Any) -> str:
    hashed = sha256()
    for path, leaf in weights:
        hashed.update(str((path, leaf[...].shape)).encode())
        hashed.update(np.ascontiguousarray(leaf[...]).data)
    return hashed.hexdigest()
