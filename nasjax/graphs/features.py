"""Features of architectures' graphs for predictors."""

from collections.abc import Callable, Mapping
from functools import reduce

import jax.numpy as jnp
from jaxtyping import Array, Float

from nasjax.graphs.graph import Graph, chosen_operations, reached
from nasjax.graphs.paths import path_features
from nasjax.graphs.weisfeiler_lehman import weisfeiler_lehman
from nasjax.types import Population

Features = tuple[Float[Array, "pop features"], ...]
"""One array for each kind."""

FEATURES: Mapping[str, Callable[[Graph, Population], Features]] = {
    "paths": path_features,
    "weisfeiler_lehman": weisfeiler_lehman,
}
"""Features of functions by name, as in `supernet.graph.features=NAME`; equal functions have equal ones."""


def graph_features(graph: Graph, archs: Population) -> Features:
    """Features of costs, two kinds, then those of functions that the graph names; works inside jit.

    - How often an operation is chosen, zeros and identities included: what is computed where nothing is left out.
    - How often of them its result reaches the output: what is computed where a compiler leaves out what is not used.
    """
    wires = graph.wires(jnp.asarray(archs))
    _, used = reached(graph, wires)
    chosen = [(wire, chosen_operations(graph, wire)) for wire in wires[: len(graph.edges)]]
    everything = reduce(jnp.add, [operations for _, operations in chosen])
    reaching = reduce(jnp.add, [jnp.where(used[wire.target][:, None], operations, 0) for wire, operations in chosen])
    return (everything, reaching, *FEATURES[graph.features](graph, archs))
