"""The functions of architectures' graphs: equal functions have one key, whatever the weights.

What zeros cut off is left out, and identities are contracted. What is left are operations, each on a sum of others' results
and of inputs: two architectures compute the same function, for some weights each, if these are isomorphic.
"""

import numpy as np
from jaxtyping import UInt64

from nasjax.graphs.graph import IDENTITY, ZERO, Graph, Wire, at_source, backward, forward
from nasjax.types import Population

MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Constants of SplitMix64 (Steele, Lea and Flood 2014), whose last steps are the hash of one number."""

Hashes = UInt64[np.ndarray, " pop"]


def function_keys(graph: Graph, archs: Population) -> Hashes:
    """A number for each architecture, the same for those that compute the same function.

    An operation is hashed with what it reads and with what its result is for, and so is their sum over the graph: operations
    that are used twice differ from two equal ones. Of all pairs of different functions one in 2^64 has equal keys.
    """
    wires, zero = graph.wires(np.asarray(archs, np.int32)), np.zeros(len(archs), np.uint64)

    def step(wire: Wire, value: Hashes) -> Hashes:
        return np.where(wire.operation == IDENTITY, value, _applied(wire.operation, value))

    read = forward(graph, wires, lambda node: _mixed(zero + np.uint64(node + 1)), step, np.add, zero)
    used = backward(graph, wires, _mixed(zero), step, np.add, zero)
    key = _applied(zero + np.uint64(1), read[graph.output])
    for wire in wires:
        source, target = at_source(wire, read), used[wire.target]
        both = _applied(wire.operation, source + _mixed(target))
        key = key + np.where((wire.operation > IDENTITY) & (source != 0) & (target != 0), both, zero)
    return key


def _applied(operation: np.ndarray, value: Hashes) -> Hashes:
    """The hash of an operation's result; 0, which stands for nothing, where it reads nothing or is a zero."""
    return np.where((operation == ZERO) | (value == 0), np.uint64(0), _mixed(value + _mixed(operation.astype(np.uint64))))


def _mixed(value: Hashes) -> Hashes:
    """A bijection of 64-bit numbers that looks random."""
    mixed = value + np.uint64(0x9E3779B97F4A7C15)
    for shift, multiplier in zip((30, 27), MULTIPLIERS, strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(multiplier)
    return mixed ^ (mixed >> np.uint64(31))
