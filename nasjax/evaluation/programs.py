"""Strategies that run a whole chunk in one program: one for re-calibration, one for the totals of a block of examples."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh
from jaxtyping import PyTree

from nasjax.evaluation.base import ALL, Calibration, KnownStatistics
from nasjax.evaluation.blocks import Block
from nasjax.evaluation.calibration import calibrate
from nasjax.evaluation.mesh import by_examples, by_rows, divide, replicate
from nasjax.evaluation.totals import Totals, batch_totals, both, in_float64, merged
from nasjax.supernets import SuperNet
from nasjax.supernets.runner import Network, Subnet
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Task
from nasjax.types import Population

Each = Callable[..., Any]
"""(function, number of rows that need results, populations of arguments) -> the population of results."""


class Programs:
    """A `Strategy` of two programs: `wrapped(net).forward` runs one architecture, `each` maps it over a population.

    Populations are padded to one size for each combination of host options, so that results do not depend on their number.
    The devices of a mesh share the work (`nasjax.evaluation.mesh`).
    """

    def __init__(
        self,
        net: SuperNet,
        task: Task,
        wrapped: Callable[[SuperNet], Network],
        each: Each,
        mesh: Mesh | None = None,
    ):
        graph, weights = nnx.split(net)
        self._weights = replicate(mesh, weights)
        self._task, self._mesh = task, mesh
        self._no_norms: tuple[Statistics, ...] = () if net.has_norms else tuple({} for _ in net.stages)
        self.calibrate = jax.jit(by_rows(mesh, calibrations(graph, wrapped, each)), static_argnames="host")
        # Totals are summed over devices; outputs that the host scores are concatenated.
        program = outputs_of_blocks if task.on_host else totals_of_blocks
        self.score = jax.jit(
            by_examples(mesh, program(graph, task, wrapped, each), add=not task.on_host), static_argnames="host"
        )

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
        score = partial(self.score, self._weights, rows, number, statistics, host=host)
        parts = []
        for block in blocks[part]:
            if self._task.on_host:
                outputs = score(divide(self._mesh, Block(block.inputs, (), ())))  # type: ignore[arg-type]
                own = jax.tree.map(lambda leaf: np.asarray(leaf)[: len(archs)], outputs)
                parts.append(in_float64(host_totals(self._task, own, block)))
            else:
                parts.append(in_float64(score(divide(self._mesh, block))))
        totals = merged(Totals(*(np.stack(leaves) for leaves in zip(*parts, strict=True))))
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


def calibrations(graph: nnx.GraphDef, wrapped: Callable[[Any], Network], each: Each) -> Callable[..., Any]:
    """(weights, archs, number, calibration inputs, host) -> statistics of the first `number` rows, population first."""

    def run(weights: Any, archs: Population, number: Any, calibration: PyTree, host: HostOptions) -> Any:
        net = wrapped(nnx.merge(graph, weights))
        return each(lambda arch: calibrate(net, arch, calibration, host), number, archs)

    return run


def totals_of_blocks(
    graph: nnx.GraphDef, task: Task, wrapped: Callable[[Any], Network], each: Each
) -> Callable[..., Totals]:
    """(weights, archs, number, statistics, block, host) -> totals of the first `number` rows, population first."""

    def run(weights: Any, archs: Population, number: Any, statistics: Any, block: Block, host: HostOptions) -> Totals:
        net = wrapped(nnx.merge(graph, weights))

        def one(arch: Choice, statistics: tuple[Statistics, ...]) -> Totals:
            def of_batch(batch: Block) -> Totals:
                outputs = task.outputs(Subnet(net, arch, statistics, host), batch.inputs)
                return batch_totals(task.statistics(outputs, batch.targets), batch.weights)

            def add(totals: Totals, batch: Block) -> tuple[Totals, None]:
                return both(totals, of_batch(batch)), None

            first = jax.tree.map(lambda leaf: leaf[0], block)
            zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_batch, first))
            return lax.scan(add, zero, block)[0]

        return each(one, number, archs, statistics)

    return run


def outputs_of_blocks(
    graph: nnx.GraphDef, task: Task, wrapped: Callable[[Any], Network], each: Each
) -> Callable[..., PyTree]:
    """(weights, archs, number, statistics, block, host) -> outputs (pop, batches, batch, …), to be scored on the host."""

    def run(weights: Any, archs: Population, number: Any, statistics: Any, block: Block, host: HostOptions) -> PyTree:
        net = wrapped(nnx.merge(graph, weights))

        def one(arch: Choice, statistics: tuple[Statistics, ...]) -> PyTree:
            return lax.map(lambda inputs: task.outputs(Subnet(net, arch, statistics, host), inputs), block.inputs)

        return each(one, number, archs, statistics)

    return run


def host_totals(task: Task, outputs: PyTree[np.ndarray], block: Block) -> Totals:
    """Totals of a population's outputs (pop, batches, batch, …) on a block, computed by NumPy."""
    targets, weights = jax.tree.map(np.asarray, (block.targets, block.weights))

    def of_batch(row: int, batch: int) -> Totals:
        own_outputs = jax.tree.map(lambda leaf: leaf[row, batch], outputs)
        statistics = np.asarray(task.statistics(own_outputs, jax.tree.map(lambda leaf: leaf[batch], targets)), np.float64)
        return batch_totals(statistics, weights[batch])

    rows = []
    for row in range(len(jax.tree.leaves(outputs)[0])):
        parts = [of_batch(row, batch) for batch in range(len(weights))]
        rows.append(merged(Totals(*(np.stack(part) for part in zip(*parts, strict=True)))))
    return Totals(*(np.stack(part) for part in zip(*rows, strict=True)))
