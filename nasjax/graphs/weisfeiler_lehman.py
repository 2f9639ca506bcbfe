"""The Weisfeiler-Lehman kernel of graphs of operations (Shervashidze et al. 2011; for cells: NAS-BOWL, arXiv:2006.07556).

A round labels every operation by its own label and those of all operations whose results it reads or that read its result.
The kernel is the product of two graphs' histograms of labels, with a weight for each round that the Gaussian process learns.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from nasjax.graphs.graph import IDENTITY, Graph, Wire, at_source, backward, forward, reached
from nasjax.types import Population

ROUNDS = 2
"""Rounds of relabelling, after the labels that are the operations themselves."""

BUCKETS = 256
"""Labels are hashed to so many signed buckets (Weinberger et al. 2009): products of histograms keep their mean."""

Labels = UInt32[Array, " pop"]


def weisfeiler_lehman(graph: Graph, archs: Population) -> tuple[Float[Array, "pop buckets"], ...]:
    """Histograms of labels, one for each round; they are equal for equal functions. Works inside jit."""
    wires, nothing = graph.wires(jnp.asarray(archs)), jnp.zeros(len(archs), jnp.uint32)
    there, used = reached(graph, wires)
    named = [
        at_source(wire, there) & used[wire.target] & (wire.operation > IDENTITY) & (wire.operation < graph.join)
        for wire in wires
    ]
    labels = [jnp.where(on, _mixed(wire.operation.astype(jnp.uint32)), 0) for wire, on in zip(wires, named, strict=True)]
    source, sink = nothing + np.uint32(1), nothing + np.uint32(2)
    histograms = [_histogram(labels)]
    for _ in range(ROUNDS):

        def brought(wire: Wire, value: Labels, labels: list[Labels] = labels) -> Labels:
            free = (wire.operation == IDENTITY) | (wire.operation == graph.join)
            return jnp.where(free, value, labels[wire.number])

        read = forward(graph, wires, lambda _: source, brought, jnp.add, nothing)
        readers = backward(graph, wires, sink, brought, jnp.add, nothing)
        labels = [
            jnp.where(on, _mixed(label + _mixed(at_source(wire, read)) + 3 * _mixed(readers[wire.target])), 0)
            for wire, on, label in zip(wires, named, labels, strict=True)
        ]
        histograms.append(_histogram([*labels, _mixed(read[graph.output])]))
    return tuple(histograms)


def _histogram(labels: list[Labels]) -> Float[Array, "pop buckets"]:
    """How often each bucket's labels occur, each with the sign that its hash gives; 0 is no label."""
    total = jnp.zeros((len(labels[0]), BUCKETS))
    for label in labels:
        here = (label % BUCKETS)[:, None] == jnp.arange(BUCKETS, dtype=jnp.uint32)[None]
        sign = jnp.where(label == 0, 0, jnp.where(label >= np.uint32(2**31), 1, -1)).astype(jnp.float32)
        total = total + jnp.where(here, sign[:, None], 0)
    return total


def _mixed(value: Labels) -> Labels:
    """A bijection of 32-bit numbers that looks random (lowbias32, Wellons 2018)."""
    value = (value ^ (value >> 16)) * np.uint32(0x7FEB352D)
    value = (value ^ (value >> 15)) * np.uint32(0x846CA68B)
    return value ^ (value >> 16)
