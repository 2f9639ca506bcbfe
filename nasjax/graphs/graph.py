"""Graphs of operations, such as cells: which function an architecture computes, by passes over the edges of its graph.

A node is the sum of the edges that end in it, and an edge is an operation on the node where it starts. A pass computes a
value for every node from those of the nodes before it, in an algebra of one's choice: sums of hashes tell functions apart,
minima of sums are shortest paths. Passes take NumPy or JAX arrays and work inside jit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.space import SearchSpace
from nasjax.types import Population

ZERO, IDENTITY = 0, 1
"""The numbers of the two operations that every graph has; those with names follow, and last the join of outputs."""


class Choice(NamedTuple):
    """What the options of the gene in a `column` of an architecture stand for, as numbers; they may all mean the same."""

    column: int
    meaning: tuple[int, ...]

    def of(self, archs: Population) -> Int[Array | np.ndarray, " pop"]:
        """What each architecture chooses."""
        return array_module(archs).asarray(np.array(self.meaning, np.int32))[archs[:, self.column]]


class Edge(NamedTuple):
    """An edge that ends in the node `target`: the node where it starts (-1: there is no edge), and its operation."""

    target: int
    source: Choice
    operation: Choice


class Wire(NamedTuple):
    """An edge of a population: arrays of the node where it starts, one of `sources`, and of its operation."""

    number: int
    """The number of edges before it."""
    target: int
    sources: tuple[int, ...]
    source: Any
    operation: Any


@dataclass(frozen=True)
class Graph:
    """The graph of every architecture of a space.

    Nodes are numbered so that edges lead upward; `inputs` have no edges, and the last node is the output. `edges` are sorted
    by target. The nodes `joined` are the network's output together: all of them, or with `unread` those that no edge starts
    from; without any, the last node is the output alone. `names` are the operations from number 2 on. `features` is the name
    of those that predictors read.
    """

    space: SearchSpace
    names: tuple[str, ...]
    inputs: tuple[int, ...]
    edges: tuple[Edge, ...]
    joined: tuple[int, ...] = ()
    unread: bool = False
    features: str = "paths"

    @property
    def output(self) -> int:
        """The last node."""
        return max([*(edge.target for edge in self.edges), *(node + 1 for node in self.joined)])

    @property
    def join(self) -> int:
        """The number of the operation that joins outputs."""
        return len(self.names) + 2

    @property
    def columns(self) -> frozenset[int]:
        """The genes that it reads."""
        return frozenset(choice.column for edge in self.edges for choice in (edge.source, edge.operation))

    def wires(self, archs: Population) -> list[Wire]:
        """The edges of a population, sorted by target. Edges whose genes are switched off do not exist."""
        library, on = array_module(archs), self.space.active(archs)
        wires: list[Wire] = []
        for edge in self.edges:
            source, operation = edge.source.of(archs), edge.operation.of(archs)
            exists = (source >= 0) & on[:, edge.source.column] & on[:, edge.operation.column]
            sources = tuple(sorted(set(edge.source.meaning) - {-1})) or (0,)
            wires.append(Wire(len(wires), edge.target, sources, source, library.where(exists, operation, ZERO)))
        for node in self.joined:
            read = library.zeros(len(archs), bool)
            for wire in wires[: len(self.edges)] if self.unread else ():
                read = read | ((wire.source == node) & (wire.operation != ZERO))
            joins = library.where(read, ZERO, self.join)
            wires.append(Wire(len(wires), self.output, (node,), library.full(len(archs), node, np.int32), joins))
        return wires

    def restricted(self, space: SearchSpace, options: tuple[tuple[int, ...], ...]) -> "Graph":
        """The graph on a `space` that keeps only some `options` (indices, by gene)."""

        def kept(choice: Choice) -> Choice:
            return Choice(choice.column, tuple(choice.meaning[i] for i in options[choice.column]))

        edges = tuple(Edge(edge.target, kept(edge.source), kept(edge.operation)) for edge in self.edges)
        return replace(self, space=space, edges=edges)


Step = Callable[[Wire, Any], Any]
"""(edge, value at its start) -> value at its end, or backward."""


def forward(graph: Graph, wires: list[Wire], start: Callable[[int], Any], step: Step, add: Callable, zero: Any) -> list[Any]:
    """The value of every node: `start(node)` of inputs, else what its edges bring, added up from `zero`."""
    values = [start(node) if node in graph.inputs else zero for node in range(graph.output + 1)]
    for wire in wires:
        values[wire.target] = add(values[wire.target], step(wire, at_source(wire, values)))
    return values


def backward(graph: Graph, wires: list[Wire], end: Any, step: Step, add: Callable, zero: Any) -> list[Any]:
    """The value of every node as seen from the output, where it is `end`."""
    values = [zero] * graph.output + [end]
    for wire in reversed(wires):
        brought = step(wire, values[wire.target])
        library = array_module(brought)
        for node in wire.sources:
            here = (wire.source == node).reshape(-1, *[1] * (brought.ndim - 1))
            values[node] = add(values[node], library.where(here, brought, zero))
    return values


def reached(graph: Graph, wires: list[Wire]) -> tuple[list[Any], list[Any]]:
    """Per node whether an input leads to it, and whether it leads to the output, where no zero is between."""
    library = array_module(wires[0].source)
    everywhere = library.ones(len(wires[0].source), bool)

    def passes(wire: Wire, value: Any) -> Any:
        return value & (wire.operation != ZERO)

    there = forward(graph, wires, lambda _: everywhere, passes, library.logical_or, ~everywhere)
    return there, backward(graph, wires, everywhere, passes, library.logical_or, ~everywhere)


def at_source(wire: Wire, values: list[Any]) -> Any:
    """The value of the node where each architecture's edge starts."""
    found = values[wire.sources[0]]
    for node in wire.sources[1:]:
        other = values[node]
        here = (wire.source == node).reshape(-1, *[1] * (other.ndim - 1))
        found = array_module(other).where(here, other, found)
    return found


def chosen_operations(graph: Graph, wire: Wire) -> Float[Array, "pop operations"]:
    """The operation of an edge, zero and identity among them, as a one-hot code."""
    return (jnp.arange(graph.join, dtype=jnp.int32)[None] == wire.operation[:, None]).astype(jnp.float32)


def array_module(array: Any) -> ModuleType:
    """`numpy` for NumPy arrays, `jax.numpy` for JAX arrays."""
    return np if isinstance(array, np.ndarray) else jnp
