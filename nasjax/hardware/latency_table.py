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
"""Of more resolutions, so many are timed: the least, the greatest, and some between."""


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
    """Every branch of a super-network: `names` has one array a stage, one axis a gene of `columns`; equals
    share a name.

    The host genes' axes come first. Where only some options of one are timed, its axis has these, and `shares` has for each
    stage the shares of these in every option. `times` is how often each stage runs for one example.
    """

    distinct: Mapping[str, Branch]
    columns: tuple[tuple[int, ...], ...]
    names: tuple[np.ndarray, ...]
    units: tuple[int, ...]
    times: tuple[int, ...]
    shares: tuple[Float[np.ndarray, "hosts timed"], ...] = ()

    def sums(self, milliseconds: Mapping[str, float]) -> TableSums:
        """The table of what each distinct branch takes, and that of how many run: timed alone, each pays for
        being called."""
        table = self._filled(lambda name: round(milliseconds[name] * NANOSECONDS))
        return TableSums(table, self._filled(lambda name: 1))

    def _filled(self, value: Callable[[str], int]) -> CostTable:
        fill = np.vectorize(lambda name: 0 if name == SKIPPED else value(name), otypes=[np.int64])
        tables = [time * fill(names) for time, names in zip(self.times, self.names, strict=True)]
        if self.shares:
            shared = zip(self.shares, tables, strict=True)
            tables = [np.rint(np.tensordot(shares, table, 1)).astype(np.int64) for shares, table in shared]
        return CostTable(self.columns, tuple(tables), self.units)


def branches(net: SuperNet, batch: int) -> Branches:
    """The branches of a super-network (shapes are enough) called with `batch` examples; repeated stages run
    `steps` times."""
    net = nnx.eval_shape(lambda: net)
    distinct: dict[str, Branch] = {}
    hosts = net.all_hosts()
    # Along one host gene of many options only some are timed.
    timed = list(range(len(hosts)))
    if len(net.host_genes) == 1 and len(hosts) > TIMED:
        timed = sorted({round(place) for place in np.linspace(0, len(hosts) - 1, TIMED)})
    slices = [_names(net, net.example(hosts[i], batch), distinct) for i in timed]
    counts = [len(gene.options) for gene in net.host_genes] if len(timed) == len(hosts) else [len(timed)]
    names = tuple(np.stack(rows).reshape((*counts, *rows[0].shape)) for rows in zip(*slices, strict=True))
    columns = tuple((*net.host_columns(), *column) for column in net.columns())
    shares: tuple[np.ndarray, ...] = ()
    if len(timed) < len(hosts):
        sizes = np.array([_carry_sizes(net, net.example(host)) for host in hosts])
        shares = tuple(_interpolation(column, timed) for column in sizes.T)
    times = tuple(net.steps if stage.repeated else 1 for stage in net.stages)
    return Branches(distinct, columns, names, cost_units(net), times, shares)


def _carry_sizes(net: SuperNet, carry: PyTree) -> list[int]:
    """Stage by stage the number of values that it reads and hands on: its time grows with these, rounding included."""
    found = []
    for i, stage in enumerate(net.stages):
        carry = net.step_carry(i, carry)
        after = _handed_on(stage, carry)
        found.append(sum(leaf.size for leaf in jax.tree.leaves((carry, after))))
        carry = after
    return found


def _interpolation(sizes: Int[np.ndarray, " hosts"], timed: list[int]) -> Float[np.ndarray, "hosts timed"]:
    """The shares of those that are timed in all others: a stage's time lies on the line between its two
    neighbours by size."""
    return np.stack([np.interp(sizes, sizes[timed], one) for one in np.eye(len(timed))], axis=1)


def _names(net: SuperNet, carry: PyTree, distinct: dict[str, Branch]) -> list[np.ndarray]:
    """Stage by stage the names of all branches; those not met before join `distinct`."""
    found = []
    for i, stage in enumerate(net.stages):
        carry = net.step_carry(i, carry)
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
        alone.repeated = False  # One run of it is timed.
        alone.genes = tuple(Gene(f"gene_{i}", gene.options) for i, gene in enumerate(alone.genes))
        return alone

    return Branch(SuperNet([nnx.eval_shape(narrowed, weights)]), carry)


def _handed_on(stage: Stage, carry: PyTree) -> PyTree:
    """Shapes of what a stage hands on."""
    graph, weights = nnx.split(stage)
    largest = tuple(len(gene.options) - 1 for gene in stage.reads)
    return jax.eval_shape(lambda weights: carry_after(nnx.merge(graph, weights), largest, carry), weights)


def network_name(network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> str:
    """A digest of all that a latency depends on beside the machine: this version, settings, shapes of
    weights, what is read.

    Of a stage its class is told by module and name, not by its code.
    """
    stages = []
    for stage in network.stages:
        bare = stage.bare()
        shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(nnx.state(bare))]
        stages.append((type(stage).__module__, bare.settings(), shapes))
    decoding = () if network.steps == 1 else (network.steps,)
    return sha256(repr((__version__, stages, str(inputs), *decoding)).encode()).hexdigest()[:16]


def extracted(net: SuperNet, arch: tuple[int, ...]) -> SuperNet:
    """Shapes of the sub-network `arch`, which its latency depends on; no weights are sliced."""
    graph, weights = nnx.split(net)
    return nnx.eval_shape(lambda weights: extract(nnx.merge(graph, weights), arch), weights)
