"""Strategies that run a whole chunk in one program: one for re-calibration, one for the totals of a block of examples."""

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from nasjax.evaluation.base import ALL, Calibration, KnownStatistics
from nasjax.evaluation.blocks import Block
from nasjax.evaluation.calibration import calibrate
from nasjax.evaluation.mesh import by_examples, by_rows, replicate
from nasjax.evaluation.scoring import finished_totals, place, program_arguments, score
from nasjax.evaluation.totals import Totals, both, in_float64, merged, stacked
from nasjax.supernets import SuperNet
from nasjax.supernets.runner import StagedNetwork, Subnet
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Task
from nasjax.types import Population

Each = Callable[..., Any]
"""(function, number of rows that need results, populations of arguments) -> the population of results."""


def at_once(function: Callable[..., Any], number: Any, *populations: Any) -> Any:
    """`function` of all rows by one `vmap`, padding rows (from `number` on) included."""
    if len(jax.tree.leaves(populations)[0]) > 1:
        return jax.vmap(function)(*populations)
    # A single row is not vmapped: the program compiles in half the time.
    result = function(*jax.tree.map(lambda leaf: leaf[0], populations))
    return jax.tree.map(lambda leaf: leaf[None], result)


def in_turn(function: Callable[..., Any], number: Int[Array, ""], *populations: Any) -> Any:
    """`function` of the first `number` rows, one after the other; zeros for other rows."""

    def row(i: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[i], populations)

    rows = len(jax.tree.leaves(populations)[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), jax.eval_shape(function, *row(0)))

    def store(i: Any, results: Any) -> Any:
        return jax.tree.map(lambda rows, new: rows.at[i].set(new), results, function(*row(i)))

    return lax.fori_loop(0, number, store, zeros)


class Programs:
    """A `Strategy` of two programs: `wrapped(net).forward` runs one architecture, `each` maps it over a population.

    Populations are padded to one size for each combination of host options, so that results do not depend on their number.
    The devices of a mesh share the work (`nasjax.evaluation.mesh`).
    """

    def __init__(
        self,
        net: SuperNet,
        task: Task,
        wrapped: Callable[[SuperNet], StagedNetwork],
        each: Each,
        mesh: Mesh | None = None,
    ):
        graph, weights = nnx.split(net)
        self._weights = replicate(mesh, weights)
        self._task, self._mesh = task, mesh
        self._no_norms: tuple[Statistics, ...] = () if net.has_norms else tuple({} for _ in net.stages)
        self.calibrate = jax.jit(by_rows(mesh, calibrations(graph, wrapped, each)), static_argnames="host")
        # Totals are summed over devices; outputs that the host scores are concatenated.
        self.score = jax.jit(
            by_examples(mesh, scores(graph, task, wrapped, each), add=not task.on_host), static_argnames="host"
        )

    def reweighted(self, net: SuperNet) -> "Programs":
        """The same programs with other weights."""
        other = copy(self)
        other._weights = replicate(self._mesh, nnx.split(net)[1])
        return other

    def statistics(self, arch: Choice, calibration: Calibration, host: HostOptions, together: int) -> tuple[Statistics, ...]:
        rows = np.tile(np.asarray(arch, np.int32), (together, 1))
        statistics = self.calibrate(self._weights, rows, np.int32(1), calibration, host=host)
        return jax.tree.map(lambda moment: jnp.asarray(np.asarray(moment)[0]), statistics)

    def totals(
        self,
        archs: Population,
        calibration: Calibration,
        blocks: Sequence[Block],
        host: HostOptions,
        together: int,
        part: slice = ALL,
        known: KnownStatistics | None = None,
    ) -> Totals:
        rows = np.concatenate([archs, np.repeat(archs[-1:], together - len(archs), axis=0)])
        number = np.int32(len(archs))
        statistics = self._no_norms or self._statistics(rows, number, calibration, host, known)
        on_host, parts = self._task.on_host, []
        for block in blocks[part]:
            placed = place(self._mesh, block, on_host)
            scored = self.score(self._weights, rows, number, statistics, program_arguments(placed, on_host), host=host)
            if on_host:
                own = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(archs)], scored)
                parts.append(_host_totals(self._task, own, block))
            else:
                parts.append(in_float64(scored))
        totals = merged(stacked(parts))
        return Totals(*(leaf[: len(archs)] for leaf in totals))

    def _statistics(
        self, rows: Population, number: np.int32, calibration: Calibration, host: HostOptions, known: KnownStatistics | None
    ) -> Any:
        """The statistics of all rows; they are small, and stored in `known` on the host."""
        keys = [(host, row.tobytes()) for row in rows]
        if known and all(key in known for key in keys):
            return jax.tree.map(lambda *moments: np.stack(moments), *(known[key] for key in keys))
        statistics = self.calibrate(self._weights, rows, number, calibration, host=host)
        if known is not None:
            on_host = jax.tree.map(np.asarray, statistics)
            for i in range(number):
                known[keys[i]] = jax.tree.map(lambda moments, i=i: moments[i], on_host)
        return statistics

    def forget(self) -> None:
        """Does nothing: nothing is cached."""

    def release(self) -> None:
        self.score.clear_cache()  # type: ignore[attr-defined]


def calibrations(graph: nnx.GraphDef, wrapped: Callable[[Any], StagedNetwork], each: Each) -> Callable[..., Any]:
    """(weights, archs, number, calibration inputs, host) -> statistics of the first `number` rows, population first."""

    def run(weights: Any, archs: Population, number: Any, calibration: PyTree, host: HostOptions) -> Any:
        net = wrapped(nnx.merge(graph, weights))
        return each(lambda arch: calibrate(net, arch, calibration, host), number, archs)

    return run


def scores(graph: nnx.GraphDef, task: Task, wrapped: Callable[[Any], StagedNetwork], each: Each) -> Callable[..., Any]:
    """(weights, archs, number, statistics, block, host) -> totals of the first `number` rows, population first.

    For a task on the host outputs (pop, batches, batch, …) instead, to be scored there.
    """

    def run(weights: Any, archs: Population, number: Any, statistics: Any, block: Block, host: HostOptions) -> Any:
        net = wrapped(nnx.merge(graph, weights))

        def one(arch: Choice, statistics: tuple[Statistics, ...]) -> Any:
            of_batch = partial(score, task, Subnet(net, arch, statistics, host))
            if task.on_host:
                return lax.map(of_batch, block)
            first = jax.tree.map(lambda leaf: leaf[0], block)
            zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_batch, first))
            return lax.scan(lambda totals, batch: (both(totals, of_batch(batch)), None), zero, block)[0]

        return each(one, number, archs, statistics)

    return run


def _host_totals(task: Task, outputs: PyTree[np.ndarray], block: Block) -> Totals:
    """Totals of a population's outputs (pop, batches, batch, …) on a block, computed by NumPy."""
    scored_against = block._replace(inputs=())  # type: ignore[arg-type]
    batches = [jax.tree.map(lambda leaf, j=j: leaf[j], scored_against) for j in range(len(block.weights))]

    def of_row(row: int) -> Totals:
        own = (jax.tree.map(lambda leaf, j=j: leaf[row, j], outputs) for j in range(len(batches)))
        parts = [finished_totals(task, scored, batch) for scored, batch in zip(own, batches, strict=True)]
        return merged(stacked(parts))

    return stacked([of_row(row) for row in range(len(jax.tree.leaves(outputs)[0]))])
