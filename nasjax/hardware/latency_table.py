"""The latency table: latencies of each stage's static branches, each distinct one timed once, summed by architecture."""

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
"""Nanoseconds in a millisecond: tables have integers."""

SKIPPED_BRANCH = ""
"""The name in place of a branch where a stage is skipped."""

MAX_RESOLUTIONS = 4
"""The greatest number of resolutions that are timed: of more, the least, the greatest, and some between."""


@dataclass(frozen=True, eq=False)
class Branch:
    """A stage with static choices as a network (shapes without values), and the shapes of its inputs."""

    network: SuperNet = field(repr=False)
    carry: PyTree[jax.ShapeDtypeStruct] = field(repr=False)


@dataclass(frozen=True, eq=False)
class TableSums:
    """Sums of a latency table for architectures, within jit: total milliseconds, and the number of stages."""

    table: CostTable
    count: CostTable

    def __call__(self, archs: Population) -> Float[Array, "pop 2"]:
        return jnp.stack([self.table.estimate(archs) / NANOSECONDS, self.count.estimate(archs)], axis=1)

    def by_unit(self, archs: Population) -> Float[Array, "pop units"]:
        """Milliseconds of every unit of the network: features of the latency model."""
        return self.table.by_unit(archs) / NANOSECONDS


@dataclass(frozen=True, eq=False)
class Branches:
    """Every branch of a super-network. `names` has an array for each stage, with an axis for each gene of `columns`; equal
    branches share a name.

    The host genes' axes come first. If only some options of a host gene are timed, its axis has these, and `shares` has for
    each stage their weights in the interpolation to every option.
    """

    distinct: Mapping[str, Branch]
    columns: tuple[tuple[int, ...], ...]
    names: tuple[np.ndarray, ...]
    units: tuple[int, ...]
    shares: tuple[Float[np.ndarray, "hosts timed"], ...] = ()

    def sums(self, milliseconds: Mapping[str, float]) -> TableSums:
        """The tables of milliseconds, given those of each distinct branch, and of the number of branches that run.

        The number matters because a branch timed alone includes the overhead of a call.
        """
        table = self._filled(lambda name: round(milliseconds[name] * NANOSECONDS))
        return TableSums(table, self._filled(lambda name: 1))

    def _filled(self, value: Callable[[str], int]) -> CostTable:
        fill = np.vectorize(lambda name: 0 if name == SKIPPED_BRANCH else value(name), otypes=[np.int64])
        tables = [fill(names) for names in self.names]
        if self.shares:
            shared = zip(self.shares, tables, strict=True)
            tables = [np.rint(np.tensordot(shares, table, 1)).astype(np.int64) for shares, table in shared]
        return CostTable(self.columns, tuple(tables), self.units)


def branches(net: SuperNet, batch: int) -> Branches:
    """The branches of a super-network (shapes are enough) for `batch` examples, `net.steps` runs of repeated stages."""
    net = nnx.eval_shape(lambda: net)
    distinct: dict[str, Branch] = {}
    hosts = net.all_hosts()
    # Only some options of a host gene with many are timed.
    timed = list(range(len(hosts)))
    if len(net.host_genes) == 1 and len(hosts) > MAX_RESOLUTIONS:
        timed = sorted({round(place) for place in np.linspace(0, len(hosts) - 1, MAX_RESOLUTIONS)})
    slices = [_names(net, net.example(hosts[i], batch), distinct) for i in timed]
    counts = [len(gene.options) for gene in net.host_genes] if len(timed) == len(hosts) else [len(timed)]
    names = tuple(np.stack(rows).reshape((*counts, *rows[0].shape)) for rows in zip(*slices, strict=True))
    columns = tuple((*net.host_columns(), *column) for column in net.columns())
    shares: tuple[np.ndarray, ...] = ()
    if len(timed) < len(hosts):
        sizes = np.array([_carry_sizes(net, net.example(host)) for host in hosts])
        shares = tuple(_interpolation(column, timed) for column in sizes.T)
    return Branches(distinct, columns, names, cost_units(net), shares)


def _carry_sizes(net: SuperNet, carry: PyTree) -> list[int]:
    """For each stage, the number of values that it reads and returns, with which its time grows."""
    found = []
    for i, stage in enumerate(net.stages):
        carry = net.step_carry(i, carry)
        after = _output_shapes(stage, carry)
        found.append(sum(leaf.size for leaf in jax.tree.leaves((carry, after))))
        carry = after
    return found


def _interpolation(sizes: Int[np.ndarray, " hosts"], timed: list[int]) -> Float[np.ndarray, "hosts timed"]:
    """The weights of the timed options in every option: times are interpolated linearly by size."""
    return np.stack([np.interp(sizes, sizes[timed], one) for one in np.eye(len(timed))], axis=1)


def _names(net: SuperNet, carry: PyTree, distinct: dict[str, Branch]) -> list[np.ndarray]:
    """For each stage, the names of all its branches; new branches are added to `distinct`."""
    found = []
    for i, stage in enumerate(net.stages):
        carry = net.step_carry(i, carry)
        gates = [()] if stage.gate is None else [(index,) for index in range(len(stage.gate[0].options))]
        names = np.full([len(gene.options) for gene in stage.reads], SKIPPED_BRANCH, object)
        for choice in product(*(range(len(gene.options)) for gene in stage.genes)):
            # Branches that differ only in the option of an open gate are the same.
            run = [gate for gate in gates if not stage.skipped((*gate, *choice))]
            branch = _branch(stage, (*run[-1], *choice), carry, net.steps if stage.repeated else 1)
            name = network_name(branch.network, branch.carry)
            distinct.setdefault(name, branch)
            for gate in run:
                names[(*gate, *choice)] = name
        found.append(names)
        carry = _output_shapes(stage, carry)
    return found


def _branch(stage: Stage, choice: tuple[int, ...], carry: PyTree, runs: int) -> Branch:
    """A stage's static branch, to be run so many times, with neutral names of genes."""
    graph, weights = nnx.split(stage)

    def narrowed(weights: nnx.State) -> Stage:
        alone = extract_stage(nnx.merge(graph, weights), choice, carry)
        alone.gate = None
        alone.place = 0  # Equal stages are timed once.
        alone.repeated = False  # Runs of it do not depend on each other.
        alone.genes = tuple(Gene(f"gene_{i}", gene.options) for i, gene in enumerate(alone.genes))
        return alone

    network = SuperNet([nnx.eval_shape(narrowed, weights)])
    network.steps = runs
    return Branch(network, carry)


def _output_shapes(stage: Stage, carry: PyTree) -> PyTree:
    """Shapes of a stage's outputs, at its largest choice."""
    graph, weights = nnx.split(stage)
    largest = tuple(len(gene.options) - 1 for gene in stage.reads)
    return jax.eval_shape(lambda weights: carry_after(nnx.merge(graph, weights), largest, carry), weights)


def network_name(network: SuperNet, inputs: PyTree[jax.ShapeDtypeStruct]) -> str:
    """A digest of all that a latency depends on besides the machine: version, settings, shapes of weights and inputs.

    A stage's class is identified by module and name, not by its code.
    """
    stages = []
    for stage in network.stages:
        bare = stage.bare()
        shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(nnx.state(bare))]
        stages.append((type(stage).__module__, bare.settings(), shapes))
    decoding = () if network.steps == 1 else (network.steps, network.beams)
    return sha256(repr((__version__, stages, str(inputs), *decoding)).encode()).hexdigest()[:16]


def extracted(net: SuperNet, arch: tuple[int, ...]) -> SuperNet:
    """The extracted sub-network `arch` as shapes, without slicing weights: enough to time it."""
    graph, weights = nnx.split(net)
    return nnx.eval_shape(lambda weights: extract(nnx.merge(graph, weights), arch), weights)
