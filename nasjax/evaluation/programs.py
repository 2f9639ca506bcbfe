"""The two programs of a way that runs a chunk within one: re-calibration, and scores of a block of pictures."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from nasjax.evaluation.base import ALL, Found
from nasjax.evaluation.blocks import Block
from nasjax.evaluation.calibration import calibrate
from nasjax.evaluation.host_genes import resized
from nasjax.evaluation.mesh import by_pictures, by_rows, everywhere, parted
from nasjax.supernets.stage import Choice, Statistics, SuperNet
from nasjax.tasks import ImageClassification
from nasjax.types import Population

Each = Callable[..., Any]
"""(function, how many rows count, arrays with the population in front) -> results, the population in front."""


class Programs:
    """A `Way`: `seen` gives the super-network the `forward` that runs one architecture, `each` runs a function for all.

    The population is always filled up, for each resolution: results then do not depend on how many are asked for. Devices of
    a mesh share the work (`nasjax.evaluation.mesh`).
    """

    def __init__(
        self, net: SuperNet, task: ImageClassification, seen: Callable[[Any], Any], each: Each, mesh: Mesh | None = None
    ):
        graph, weights = nnx.split(net)
        self._weights = everywhere(mesh, weights)
        self._mesh = mesh
        self.calibrate = jax.jit(by_rows(mesh, calibrations(graph, seen, each)), static_argnames="size")
        self.score = jax.jit(by_pictures(mesh, scores(graph, task, seen, each)), static_argnames="size")

    def statistics(
        self, arch: Choice, calibration: Float[Array, "batches batch h w c"], size: int | None, together: int
    ) -> tuple[Statistics, ...]:
        rows = np.tile(np.asarray(arch, np.int32), (together, 1))
        found = self.calibrate(self._weights, rows, np.int32(1), calibration, size=size)
        return jax.tree.map(lambda moment: jnp.asarray(np.asarray(moment)[0]), found)

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
        rows = np.concatenate([archs, np.repeat(archs[-1:], together - len(archs), axis=0)])
        number = np.int32(len(archs))
        statistics = self._statistics(rows, number, calibration, size, kept)
        score = partial(self.score, self._weights, rows, number, statistics, size=size)
        found = [score(*parted(self._mesh, block)) for block in blocks[part]]
        # Sums over many blocks are kept in float64.
        kinds = zip(*found, strict=True)
        sums, squares = (np.sum([np.asarray(part, np.float64) for part in kind], axis=0) for kind in kinds)
        return sums[: len(archs)], squares[: len(archs)]

    def _statistics(
        self, rows: Population, number: np.int32, calibration: Array, size: int | None, kept: Found | None
    ) -> Any:
        """The statistics of all rows; on the host where they are kept: they are small beside pictures and activations."""
        keys = [(size, row.tobytes()) for row in rows]
        if kept and all(key in kept for key in keys):
            return jax.tree.map(lambda *moments: np.stack(moments), *(kept[key] for key in keys))
        found = self.calibrate(self._weights, rows, number, calibration, size=size)
        if kept is not None:
            held = jax.tree.map(np.asarray, found)
            for i in range(number):
                kept[keys[i]] = jax.tree.map(lambda moments, i=i: moments[i], held)
        return found

    def forget(self) -> None:
        """Nothing is kept."""

    def release(self) -> None:
        self.score.clear_cache()  # type: ignore[attr-defined]


def calibrations(graph: nnx.GraphDef, seen: Callable[[Any], Any], each: Each) -> Any:
    """(weights, archs, how many count, calibration pictures, size) -> statistics with the population in front."""

    def run(weights, archs, number, calibration, size):
        net = seen(nnx.merge(graph, weights))
        return each(lambda arch: calibrate(net, arch, calibration, size), number, archs)

    return run


def scores(graph: nnx.GraphDef, task: ImageClassification, seen: Callable[[Any], Any], each: Each) -> Any:
    """(weights, archs, how many count, statistics, images, labels, counted, size) -> sums of metrics, sums of squares.

    Both (pop, metrics).
    """

    def run(weights, archs, number, statistics, images, labels, counted, size):
        net = seen(nnx.merge(graph, weights))

        def one(arch, statistics):
            def validate(totals, batch):
                pictures, classes, count = batch
                logits = net.forward(resized(pictures, size), arch, statistics)[0]
                found = added(task, logits, classes, count)
                return jax.tree.map(jnp.add, totals, found), None

            zero = jnp.zeros(len(task.metrics))
            return lax.scan(validate, (zero, zero), (images, labels, counted))[0]

        return each(one, number, archs, statistics)

    return run


def added(
    task: ImageClassification,
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    counted: Float[Array, " batch"],
) -> tuple[Float[Array, " metrics"], Float[Array, " metrics"]]:
    """Sums over a batch of every metric and of its square; pictures that are not counted are left out."""
    scores = task.scores(logits, labels) * counted[:, None]
    return scores.sum(0), jnp.square(scores).sum(0)
