"""Exact costs: a table for each stage over the genes that it reads, summed along an architecture.

Multiply-accumulates and memory are counted in the jaxpr of the extracted stage, parameters and bytes in its weights, so that
no layer declares them. Tables are int64 on the host; `estimate` sums them in float32 within jit, for ranking only. Memory is
a peak: a network's is the largest of its stages', not their sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from nasjax.hardware.activation_memory import array_bytes, jaxpr_memory
from nasjax.jaxprs import jaxpr_macs
from nasjax.supernets.extract import carry_after, extract_stage
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet
from nasjax.types import Population


@dataclass(frozen=True, eq=False)
class CostTable:
    """One cost of every sub-network: for each stage the columns of its genes and an int64 array with an axis for each gene.

    `units` numbers the part of the network that each stage belongs to: consecutive stages with outputs of the same shape.
    `peak`: a network's cost is the maximum over its stages, not the sum.
    """

    columns: tuple[tuple[int, ...], ...]
    tables: tuple[Int[np.ndarray, "..."], ...]
    units: tuple[int, ...] = ()
    peak: bool = False

    def exact(self, archs: Population) -> Int[np.ndarray, " pop"]:
        """Exact costs of canonical architectures, on the host."""
        archs = np.asarray(archs)
        total = np.zeros(len(archs), np.int64)
        for columns, table in zip(self.columns, self.tables, strict=True):
            stage = table[tuple(archs[:, column] for column in columns)]
            total = np.maximum(total, stage) if self.peak else total + stage
        return total

    def estimate(self, archs: Population) -> Float[Array, " pop"]:
        """The same costs in float32, for use within jit: for ranking, not for storing."""
        archs = jnp.asarray(archs)
        total = jnp.zeros(len(archs), jnp.float32)
        for columns, table in zip(self.columns, self.tables, strict=True):
            stage = jnp.asarray(table, jnp.float32)[tuple(archs[:, column] for column in columns)]
            total = jnp.maximum(total, stage) if self.peak else total + stage
        return total

    def by_unit(self, archs: Population) -> Float[Array, "pop units"]:
        """Sums over each unit in float32, for use within jit: features of predictors."""
        archs = jnp.asarray(archs)
        totals = [jnp.zeros(len(archs), jnp.float32)] * (max(self.units, default=-1) + 1)
        for unit, columns, table in zip(self.units, self.columns, self.tables, strict=True):
            totals[unit] += jnp.asarray(table, jnp.float32)[tuple(archs[:, column] for column in columns)]
        return jnp.stack(totals, axis=1)

    def maximum(self) -> int:
        """An upper bound over the space: every stage at its greatest cost."""
        return (max if self.peak else sum)(int(table.max()) for table in self.tables)


def cost_tables(net: SuperNet) -> dict[str, CostTable]:
    """The table of every exact cost.

    `macs`: multiply-accumulates of one example, repeated stages running `net.steps` times; `params`: weights without
    batch-norm statistics; `model_size`: bytes of weights and statistics; `memory`: peak bytes of one example's activations,
    see `jaxpr_memory`.

    `net` may be abstract (`nnx.eval_shape(config.create)`): only shapes are read. The host genes are the first axes of a
    stage's table, unless the cost is the same for all their options.
    """
    units = cost_units(net)
    stages = list(zip(_tables(net), net.stages, strict=True))

    def slices(name: str) -> list[list[np.ndarray]]:
        times = [net.steps if stage.repeated and name in ADDED_BY_STEP else 1 for _, stage in stages]
        return [[time * table for table in found[name]] for (found, _), time in zip(stages, times, strict=True)]

    return {name: _table(net, slices(name), units, name in PEAKS) for name in COSTS}


def _table(net: SuperNet, slices: list[list[np.ndarray]], units: tuple[int, ...], peak: bool) -> CostTable:
    """The table of one cost, from `slices[stage][combination of host options]`; without host axes where these are equal."""
    host, counts = net.host_columns(), [len(gene.options) for gene in net.host_genes]
    same = [all(np.array_equal(table, stage[0]) for table in stage) for stage in slices]
    return CostTable(
        tuple(column if one else (*host, *column) for column, one in zip(net.columns(), same, strict=True)),
        tuple(
            stage[0] if one else np.stack(stage).reshape((*counts, *stage[0].shape))
            for stage, one in zip(slices, same, strict=True)
        ),
        units,
        peak,
    )


def cost_units(net: SuperNet) -> tuple[int, ...]:
    """The unit of every stage: a new one begins at each stage whose outputs have another shape than its inputs."""
    carry: PyTree = net.example(net.all_hosts()[-1])
    units: list[int] = []
    choices = net.choices(tuple(map(int, net.space.largest())))
    for i, (stage, choice) in enumerate(zip(net.stages, choices, strict=True)):
        carry = net.step_carry(i, carry)
        after = _with_weights(stage, carry_after, choice, carry)
        same = str(after) == str(carry)
        units.append(units[-1] + (not same) if units else 0)
        carry = after
    return tuple(units)


def _tables(net: SuperNet) -> list[dict[str, list[np.ndarray]]]:
    """For every stage and cost, a table for each combination of host options."""
    carries: list[PyTree] = [net.example(host) for host in net.all_hosts()]
    tables = []
    known: list[tuple[Any, list[PyTree], dict[str, list[np.ndarray]]]] = []
    for i, stage in enumerate(net.stages):
        carries = [net.step_carry(i, carry) for carry in carries]
        signature = (list(map(_shape_text, carries)), _signature(stage))
        if not any(signature == before for before, _, _ in known):
            known.append((signature, *_stage_tables(stage, carries)))
        _, carries, found = next(row for row in known if row[0] == signature)
        tables.append({name: [_gated(stage, table) for table in slices] for name, slices in found.items()})
    return tables


def _shape_text(carry: PyTree) -> str:
    """Text that is equal for equal shapes."""
    return f"{jax.tree.structure(carry)} {jax.tree.leaves(carry)}"


def _signature(stage: Stage) -> tuple[Any, ...]:
    """Equal for stages of equal costs: structure, settings and shapes, without the names of genes."""
    bare = stage.bare()
    bare.place = 0
    graph, weights = nnx.split(bare)
    return (graph, *((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(weights)))


def _with_weights(stage: Stage, function: Callable[..., Any], *arguments: Any) -> Any:
    """The shapes of `function(stage, *arguments)`, with traced weights."""
    graph, weights = nnx.split(stage)
    return nnx.eval_shape(lambda weights: function(nnx.merge(graph, weights), *arguments), weights)


def _stage_tables(stage: Stage, carries: list[PyTree]) -> tuple[list[PyTree], dict[str, list[np.ndarray]]]:
    """A stage's outputs for each of `carries`, and its costs there for every choice of `stage.genes`, with an open gate.

    Each choice is extracted once, since extracted weights do not depend on the size of images.
    """
    largest = tuple(len(gene.options) - 1 for gene in stage.reads)
    open_gate = () if stage.gate is None else largest[:1]
    counts = tuple(len(gene.options) for gene in stage.genes)
    distinct = {_shape_text(carry): carry for carry in carries}
    after = {shape: _with_weights(stage, carry_after, largest, carry) for shape, carry in distinct.items()}
    tables = {shape: {name: np.zeros(counts, np.int64) for name in COSTS} for shape in distinct}
    for choice in product(*map(range, counts)):
        graph, weights = nnx.split(_with_weights(stage, extract_stage, open_gate + choice, carries[0]))
        owned = [leaf for path, leaf in nnx.to_flat_state(weights) if ".".join(map(str, path)) not in stage.borrowed]
        for shape, carry in distinct.items():
            jaxpr = _jaxpr(graph, weights, carry)
            for name, cost in COSTS.items():
                tables[shape][name][choice] = cost(jaxpr, weights, owned)
    order = list(map(_shape_text, carries))
    return [after[shape] for shape in order], {name: [tables[shape][name] for shape in order] for name in COSTS}


def _gated(stage: Stage, table: np.ndarray) -> np.ndarray:
    """The table with the gate's axis first: a skipped stage costs nothing."""
    if stage.gate is None:
        return table
    gene, value = stage.gate
    return np.stack([table if index >= gene.level(value) else np.zeros_like(table) for index in range(len(gene.options))])


def _jaxpr(graph: nnx.GraphDef, weights: nnx.State, carry: PyTree) -> Any:
    """The jaxpr of an extracted stage as a function of its carry and weights."""

    def run(carry: PyTree, weights: nnx.State) -> PyTree:
        stage = nnx.merge(graph, weights)
        return stage(carry, (0,) * len(stage.reads), stage.stored())[0]

    return jax.make_jaxpr(run)(carry, weights).jaxpr


COSTS: dict[str, Callable[[Any, nnx.State, Sequence[nnx.Variable]], int]] = {
    # Includes padding, as is usual.
    "macs": lambda jaxpr, weights, owned: jaxpr_macs(jaxpr),
    "params": lambda jaxpr, weights, owned: sum(prod(leaf.shape) for leaf in owned if isinstance(leaf, nnx.Param)),
    "model_size": lambda jaxpr, weights, owned: array_bytes(owned),
    "memory": lambda jaxpr, weights, owned: jaxpr_memory(jaxpr, len(jax.tree.leaves(weights))),
}
"""Every exact cost of an extracted stage: of its jaxpr, whose last arguments are the weights, its weights, and those of them
that no other stage has."""

PEAKS = ("memory",)
"""Costs whose value for a network is the maximum over its stages."""

ADDED_BY_STEP = ("macs",)
"""Costs that every run of a repeated stage adds to."""
