"""Counts, paths and degrees by operation, after GRAF (Kadlecová et al., ICML 2024, arXiv:2404.16551).

They are those of the contracted graph, and so equal for equal functions: what zeros cut off does not count, and identities
have no length.
"""

from functools import reduce

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nasjax.graphs.graph import IDENTITY, Graph, Wire, at_source, chosen_operations, forward, reached
from nasjax.types import Population

Features = Float[Array, "pop features"]


def path_features(graph: Graph, archs: Population) -> tuple[Features, ...]:
    """Features of functions by kind; works inside jit.

    - How often an operation reads the input and reaches the output.
    - Shortest paths: 1 / (1 + the least number of operations from the input to the output), for paths of one operation alone
      and of any; 0 where there is none.
    - Longest paths: the greatest number of times that an operation, or any, occurs on a path.
    - Degrees: the operations and inputs that the output sums up, and those that each operation reads.
    """
    wires, number = graph.wires(jnp.asarray(archs)), len(archs)
    there, used = reached(graph, wires)
    alive = [
        jnp.where((at_source(wire, there) & used[wire.target])[:, None], chosen_operations(graph, wire)[:, 2:], 0)
        for wire in wires
    ]
    return (
        reduce(jnp.add, alive),
        _shortest_paths(graph, wires, number),
        _longest_paths(graph, wires, number),
        _degrees(graph, wires, alive),
    )


def _shortest_paths(graph: Graph, wires: list[Wire], number: int) -> Features:
    lengths = _lengths(graph, np.inf, np.inf)
    start = jnp.zeros((number, lengths.shape[1]))
    found = forward(graph, wires, lambda _: start, lambda w, v: v + lengths[w.operation], jnp.minimum, start + jnp.inf)
    return 1 / (1 + found[graph.output])


def _longest_paths(graph: Graph, wires: list[Wire], number: int) -> Features:
    lengths = _lengths(graph, -np.inf, 0)
    start = jnp.zeros((number, lengths.shape[1]))
    found = forward(graph, wires, lambda _: start, lambda w, v: v + lengths[w.operation], jnp.maximum, start - jnp.inf)
    return jnp.maximum(found[graph.output], 0)


def _lengths(graph: Graph, absent: float, outside: float) -> Float[Array, "operations subsets"]:
    """The length of every operation on paths of each operation alone, and of all: `absent` of zeros, `outside` of others."""
    number = len(graph.names)
    inside = np.concatenate([np.eye(number), np.ones((number, 1))], 1)
    free = np.zeros((1, number + 1))  # Identities and joins.
    return jnp.asarray(np.concatenate([free + absent, free, np.where(inside > 0, 1, outside), free]), jnp.float32)


def _degrees(graph: Graph, wires: list[Wire], alive: list[Float[Array, "pop operations"]]) -> Features:
    """How many results of each operation, and inputs, the output sums up, and those that each operation reads."""
    results = [jnp.pad(named, ((0, 0), (0, 1))) for named in alive]

    def brought(wire: Wire, read: Float[Array, "pop kinds"]) -> Float[Array, "pop kinds"]:
        same = (wire.operation == IDENTITY) | (wire.operation == graph.join)
        return jnp.where(same[:, None], read, results[wire.number])

    start = jnp.zeros_like(results[0]).at[:, -1].set(1)
    sums = forward(graph, wires, lambda _: start, brought, jnp.add, jnp.zeros_like(start))
    pairs = [at_source(wire, sums)[:, :, None] * named[:, None] for wire, named in zip(wires, alive, strict=True)]
    read = reduce(jnp.add, pairs)
    return jnp.concatenate([sums[graph.output], read.reshape(len(read), -1)], 1)
