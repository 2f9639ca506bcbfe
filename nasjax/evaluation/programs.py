"""The two programs of a strategy that runs a chunk within one: re-calibration, and the totals of a block of examples."""

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
from nasjax.evaluation.mesh import by_examples, by_rows, everywhere, parted
from nasjax.evaluation.totals import Totals, batch_totals, both, in_float64, merged
from nasjax.supernets import SuperNet
from nasjax.supernets.runner import Network, Subnet
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.tasks import Task
from nasjax.types import Population

Each = Callable[..., Any]
"""(function, how many rows count, arrays with the population in front) -> results, the population in front."""


class Programs:
    """A `Strategy`: `wrapped` gives the super-network the `forward` that runs one architecture, `each` runs
    all of them.

    The population is always filled up, for each combination of host options: results then do not depend on how many are
    asked for. Devices of a mesh share the work (`nasjax.evaluation.mesh`).
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
        self._weights = everywhere(mesh, weights)
        self._task, self._mesh = task, mesh
        self._no_norms: tuple[Statistics, ...] = () if net.has_norms else tuple({} for _ in net.stages)
        self.calibrate = jax.jit(by_rows(mesh, calibrations(graph, wrapped, each)), static_argnames="host")
        # Totals are added over devices; outputs that the host scores are brought together.
        kind = outputs_of_blocks if task.on_host else totals_of_blocks
        gather = not task.on_host
        self.score = jax.jit(by_examples(mesh, kind(graph, task, wrapped, each), gather), static_argnames="host")

    def statistics(self, arch: Choice, calibration: Calibration, host: HostOptions, together: int) -> tuple[Statistics, ...]:
        rows = np.tile(np.asarray(arch, np.int32), (together, 1))
        found = self.calibrate(self._weights, rows, np.int32(1), calibration, host=host)
        return jax.tree.map(lambda moment: jnp.asarray(np.asarray(moment)[0]), found)

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
        found = []
        for block in blocks[part]:
            scored = score(parted(self._mesh, block))
            if self._task.on_host:
                scored = host_totals(self._task, jax.tree.map(np.asarray, scored), block)
            found.append(in_float64(scored))
        totals = merged(Totals(*(np.stack(parts) for parts in zip(*found, strict=True))))
        return Totals(*(part[: len(archs)] for part in totals))

    def _statistics(
        self, rows: Population, number: np.int32, calibration: Calibration, host: HostOptions, known: KnownStatistics | None
    ) -> Any:
        """The statistics of all rows; on the host where they are kept: they are small beside examples and activations."""
        keys = [(host, row.tobytes()) for row in rows]
        if known and all(key in known for key in keys):
            return jax.tree.map(lambda *moments: np.stack(moments), *(known[key] for key in keys))
        found = self.calibrate(self._weights, rows, number, calibration, host=host)
        if known is not None:
            held = jax.tree.map(np.asarray, found)
            for i in range(number):
                known[keys[i]] = jax.tree.map(lambda moments, i=i: moments[i], held)
        return found

    def forget(self) -> None:
        """Nothing is cached."""

    def release(self) -> None:
        self.score.clear_cache()  # type: ignore[attr-defined]


def calibrations(graph: nnx.GraphDef, wrapped: Callable[[Any], Network], each: Each) -> Callable[..., Any]:
    """(weights, archs, how many count, calibration inputs, host) -> statistics with the population in front."""

    def run(weights: Any, archs: Population, number: Any, calibration: PyTree, host: HostOptions) -> Any:
        net = wrapped(nnx.merge(graph, weights))
        return each(lambda arch: calibrate(net, arch, calibration, host), number, archs)

    return run


def totals_of_blocks(
    graph: nnx.GraphDef, task: Task, wrapped: Callable[[Any], Network], each: Each
) -> Callable[..., Totals]:
    """(weights, archs, how many count, statistics, block, host) -> totals, the population in front."""

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
    """(weights, archs, how many count, statistics, block, host) -> outputs (pop, batches, batch, …), for the
    host to score."""

    def run(weights: Any, archs: Population, number: Any, statistics: Any, block: Block, host: HostOptions) -> PyTree:
        net = wrapped(nnx.merge(graph, weights))

        def one(arch: Choice, statistics: tuple[Statistics, ...]) -> PyTree:
            return lax.map(lambda inputs: task.outputs(Subnet(net, arch, statistics, host), inputs), block.inputs)

        return each(one, number, archs, statistics)

    return run


def host_totals(task: Task, outputs: PyTree[np.ndarray], block: Block) -> Totals:
    """Totals of a population's outputs (pop, batches, batch, …) on a block, by NumPy."""
    targets, weights = jax.tree.map(np.asarray, (block.targets, block.weights))

    def of_batch(row: int, batch: int) -> Totals:
        mine = jax.tree.map(lambda leaf: leaf[row, batch], outputs)
        statistics = np.asarray(task.statistics(mine, jax.tree.map(lambda leaf: leaf[batch], targets)), np.float64)
        return batch_totals(statistics, weights[batch])

    rows = []
    for row in range(len(jax.tree.leaves(outputs)[0])):
        parts = [of_batch(row, batch) for batch in range(len(weights))]
        rows.append(merged(Totals(*(np.stack(part) for part in zip(*parts, strict=True)))))
    return Totals(*(np.stack(part) for part in zip(*rows, strict=True)))
