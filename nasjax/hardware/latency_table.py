"""The latency table: what each stage's static branches take, every distinct one timed once, summed along an architecture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, PyTree

from nasjax.hardware.costs import CostTable, cost_units
from nasjax.space import Gene
from nasjax.supernets.extract import carry_after, extract, extract_stage
from nasjax.supernets.stage import Stage
from nasjax.supernets.supernet import SuperNet
from nasjax.types import Population
from nasjax.version import __version__

NANOSECONDS = 1e6
"""Of a millisecond: a table of whole numbers holds latencies too."""

SKIPPED = ""
"""The name of no branch at all."""

TIMED = 4
"""Of more resolutions than so many, so many are timed: the least, the greatest, and some between."""


@dataclass(frozen=True, eq=False)
class Branch:
    """A stage with static choices, as a network of its own (shapes alone), and what it is called with."""

    network: SuperNet = field(repr=False)
    carry: PyTree[jax.ShapeDtypeStruct] = field(repr=False)


@dataclass(frozen=True, eq=False)
class TableSums:
    """What a latency table says of architectures, inside jit: milliseconds in all, and the number of stages."""

    table: CostTable
    count: CostTable

    def __call__(self, archs: Population) -> Float[Array, "pop 2"]:
        return jnp.stack([self.table.estimate(archs) / NANOSECONDS, self.count.estimate(archs)], axis=1)

    def by_unit(self, archs: Population) -> Float[Array, "pop units"]:
        """Milliseconds of every part of the network: what a predictor of the rest reads."""
        return self.table.by_unit(archs) / NANOSECONDS


@dataclass(frozen=True, eq=False)
class Branches:
    """Every branch of a super-network: `names` has one array a stage, one axis a gene of `columns`; equals share a name.

    Where the resolution is elastic the first axis are those that are timed; `shares`, of each stage: what these count for in
    every resolution.
    """

    distinct: Mapping[str, Branch]
    columns: tuple[tuple[int, ...], ...]
    names: tuple[np.ndarray, ...]
    units: tuple[int, ...]
    shares: tuple[Float[np.ndarray, "resolutions timed"], ...] = ()

    def sums(self, milliseconds: Mapping[str, float]) -> TableSums:
        """The table of what each distinct branch takes; and that of one a stage: timed alone, each pays for being called."""
        table = self._filled(lambda name: round(milliseconds[name] * NANOSECONDS))
        return TableSums(table, self._filled(lambda name: 1))

    def _filled(self, value: Callable[[str], int]) -> CostTable:
        fill = np.vectorize(lambda name: 0 if name == SKIPPED else value(name), otypes=[np.int64])
        tables = [fill(names) for names in self.names]
        if self.shares:
            shared = zip(self.shares, tables, strict=True)
            tables = [np.rint(np.tensordot(shares, table, 1)).astype(np.int64) for shares, table in shared]
        return CostTable(self.columns, tuple(tables), self.units)


def branches(net: SuperNet, batch: int) -> Branches:
    """The branches of a super-network (shapes are enough) called with `batch` examples."""
    net = nnx.eval_shape(lambda: net)
    distinct: dict[str, Branch] = {}
    if not net.resolutions:
        return Branches(distinct, net.columns(), tuple(_names(net, _inputs(net, batch, None), distinct)), cost_units(net))
    timed = sorted({round(place) for place in np.linspace(0, len(net.resolutions) - 1, TIMED)})
    slices = [_names(net, _inputs(net, batch, net.resolutions[i]), distinct) for i in timed]
    names = tuple(np.stack(rows) for rows in zip(*slices, strict=True))
    columns = tuple((0, *column) for column in net.columns())
    shares: tuple[np.ndarray, ...] = ()
    if len(timed) < len(net.resolutions):
        carried = np.array([_carried(net, _inputs(net, 1, size)) for size in net.resolutions])
        shares = tuple(_shares(sizes, timed) for sizes in carried.T)
    return Branches(distinct, columns, names, cost_units(net), shares)


def _carried(net: SuperNet, carry: PyTree) -> list[int]:
    """Stage by stage how many numbers it is given and hands on: what it takes grows with these, rounding included."""
    found = []
    for stage in net.stages:
        after = _handed_on(stage, carry)
        found.append(sum(leaf.size for leaf in jax.tree.leaves((carry, after))))
        carry = after
    return found


def _shares(sizes: Int[np.ndarray, " resolutions"], timed: list[int]) -> Float[np.ndarray, "resolutions timed"]:
    """Between two that are timed, a stage takes what lies on the line through them, by its size."""
    return np.stack([np.interp(sizes, sizes[timed], one) for one in np.eye(len(timed))], axis=1)


def _inputs(net: SuperNet, batch: int, resolution: int | None) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of `batch` examples, of a resolution where that is elastic."""
    example = net.example(resolution)
    return jax.tree.map(lambda one: jax.ShapeDtypeStruct((batch, *one.shape[1:]), one.dtype), example)


def _names(net: SuperNet, carry: PyTree, distinct: dict[str, Branch]) -> list[np.ndarray]:
    """Stage by stage the names of all branches; those not met before join `distinct`."""
    found = []
    for stage in net.stages:
        gates = [()] if stage.gate is None else [(index,) for index in range(len(stage.gate[0].options))]
        names = np.full([len(gene.options) for gene in stage.reads], SKIPPED, object)
        for choice in product(*(range(len(gene.options)) for gene in stage.genes)):
            # The gate decides whether a stage runs, not what it does: its branches with an open gate are one.
            run = [gate for gate in gates if not stage.skipped((*gate, *choice))]
            branch = _branch(stage, (*run[-1], *choice), carry)
            name = network_name(branch.network, branch.carry)
            distinct.setdefault(name, branch)
            for gate in run:
                names[(*gate, *choice)] = name
        found.append(names)
        carry = _handed_on(stage, carry)
    return found


def _branch(stage: Stage, choice: tuple[int, ...], carry: PyTree) -> Branch:
    """A stage's static branch, whatever its genes are called."""
    graph, weights = nnx.split(stage)

    def narrowed(weights: nnx.State) -> Stage:
        alone = extract_stage(nnx.merge(graph, weights), choice, carry)
        alone.gate = None
        alone.genes = tuple(Gene(f"gene_{i}", gene.options) for i, gene in enumerate(alone.genes))
        return alone

    return Branch(SuperNet([nnx.eval_shape(narrowed, weights)]), carry)


def _handed_on(stage: Stage, carry: PyTree) -> PyTree:
    """Shapes of what a stage hands on."""
    graph, weights = nnx.split(stage)
    largest = tuple(len(gene.options) - 1 for gene in stage.reads)
    return jax.eval_shape(lambda weights: carry_after(nnx.merge(graph, weights), largest, carry), weights)


def network_name(network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> str:
    """A digest of all that a latency depends on beside the machine: this version, settings, shapes of weights, what is read.

    Of a stage its class is told by module and name, not by its code.
    """
    stages = []
    for stage in network.stages:
        bare = stage.bare()
        shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(nnx.state(bare))]
        stages.append((type(stage).__module__, bare.settings(), shapes))
    return sha256(repr((__version__, stages, str(inputs))).encode()).hexdigest()[:16]


def extracted(net: SuperNet, arch: tuple[int, ...]) -> SuperNet:
    """Shapes of the sub-network `arch`: what a latency depends on; no weights are sliced."""
    graph, weights = nnx.split(net)
    return nnx.eval_shape(lambda weights: extract(nnx.merge(graph, weights), arch), weights)
