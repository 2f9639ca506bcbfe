"""What evaluation takes of the memory: what fits is planned before anything is measured."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.blocks import example_bytes
from nasjax.supernets import SuperNet

EXAMPLES_SHARE = 0.25
"""The share of the memory that the examples to be scored may take at once."""

COMPILER_BYTES = 90_000
"""Bytes that compiling an operation takes; measured for MobileNetV3: 84,000 at 224 pixels, 100,000 at 32. ResNet50's few
operations take 200,000, less together than its activations are overrated by."""

KEPT_SHARE = 0.4
"""The share of it that each further combination of host options takes: what its programs keep. Measured for MobileNetV3's
resolutions: 0.37."""

MATERIALISED = ("dot_general", "conv_general_dilated", "cond", "scan", "while")
"""The operations whose results stand in memory: XLA fuses all between them."""

ALIVE = 6
"""How many of the largest such results may be alive at once; re-calibration on a CPU: 3 (MobileNetV3) to 6 (ResNet50)."""

CPU_BYTES = 1.6e7
"""What the activations of a chunk may take on a CPU: more leave its caches, and kernels that differ are slow there."""


class TooLarge(ConfigError):
    """The memory does not hold one network."""


class Needs(NamedTuple):
    """What a strategy takes: bytes for each example of one sub-network, and for compiling.

    `together` says that the sub-networks of a chunk run at once; else one after the other, in the memory of one.
    """

    example: int
    compiling: int
    together: bool


class Plan(NamedTuple):
    """Examples scored at a time, sub-networks run at once, bytes for a block of examples, and bytes that are left."""

    batch: int
    chunk: int
    room: float
    spare: float


def plan(
    config: Any, needs: Needs, net: SuperNet, calibration: PyTree[Array | np.ndarray], inputs: PyTree, number: int
) -> Plan:
    """What fits the memory of the evaluator's settings, `number` examples like `inputs` being there to be scored: by one
    device, where several share them.

    Scores are sums over examples, so that fewer at a time change nothing but rounding; moments are those of a batch, which
    cannot be cut apart: raises TooLarge where one network does not fit on a batch of `calibration`.
    """
    leaves = jax.tree.leaves(calibration)
    together = leaves[0].shape[1] if leaves else 1
    example, each = example_bytes(inputs), needs.example
    # Masked weights are each sub-network's own; the library lays them out anew, and packs them.
    weights = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(net)))
    # Of what is compiled for one combination of host options a part stays while the others are.
    compiling = needs.compiling * (1 + KEPT_SHARE * (len(net.all_hosts()) - 1))
    taken = sum(leaf.nbytes for leaf in leaves) + compiling
    free = config.memory_gb * 1e9 - taken - weights
    batch = int(min(config.batch, number, free // (each + example), (free - together * each) // example))
    if batch < 1:
        fits = int((free - example) // each)
        advice = f"evaluator.batch={fits} does, or more memory" if fits > 0 else "nor on one; more memory does"
        raise TooLarge(
            f"evaluator.memory_gb={config.memory_gb} does not hold one network on the evaluator.batch={together} examples "
            f"that re-calibrate it together, which take {(together * each + example + weights + taken) / 1e9:.2g}; {advice}"
        )
    activations = max(batch, together) * each
    everything = -(-number // batch) * batch * example
    room = max(batch * example, min(EXAMPLES_SHARE * config.memory_gb * 1e9, free - activations, everything))
    spare = config.memory_gb * 1e9 - taken - room
    if not needs.together:
        return Plan(batch, config.chunk, room, max(0, spare - activations - weights))
    fit = int(spare // (activations + weights))
    quick = int(max(1, CPU_BYTES // activations)) if jax.default_backend() == "cpu" else fit
    return Plan(batch, max(1, min(config.chunk, fit, quick)), room, 0)


def network_bytes(net: SuperNet) -> int:
    """Memory of the largest network for one example: its inputs and the ALIVE largest MATERIALISED results."""
    return example_bytes(net.example()) + sum(sorted(_sizes(net).results, reverse=True)[:ALIVE])


def gradient_bytes(net: SuperNet) -> int:
    """Memory of a gradient of the largest network for one example: twice all MATERIALISED results."""
    return 2 * sum(_sizes(net).results)


def compiler_bytes(net: SuperNet, wrapped: Callable[[SuperNet], Any] = lambda net: net) -> int:
    """What compiling takes beside: so much for every operation, those within others included; `wrapped` runs forward."""
    return COMPILER_BYTES * _sizes(net, wrapped).operations


class Sizes(NamedTuple):
    """A network's number of operations, and the bytes of every MATERIALISED result for one example."""

    operations: int
    results: tuple[int, ...]


_KNOWN: dict[Any, Sizes] = {}
"""Sizes of the networks traced before: every evaluator of a network asks for them again."""


def _sizes(net: SuperNet, wrapped: Callable[[SuperNet], Any] = lambda net: net) -> Sizes:
    """The sizes of a network as `wrapped` runs it."""
    stages = [nnx.split(nnx.eval_shape(lambda stage=stage: stage)) for stage in net.stages]  # type: ignore[misc]
    shapes = [(leaf.shape, str(leaf.dtype)) for _, weights in stages for leaf in jax.tree.leaves(weights)]
    key = (
        getattr(wrapped, "__qualname__", ""),
        type(net),
        str(net.example()),
        repr([graph for graph, _ in stages]),
        str(shapes),
    )
    if key not in _KNOWN:
        largest = jnp.asarray(net.space.largest())
        jaxpr = jax.make_jaxpr(lambda x: wrapped(net).forward(x, largest, net.stored())[0])(net.example()).jaxpr
        _KNOWN[key] = Sizes(_operations(jaxpr), tuple(_materialised(jaxpr)))
    return _KNOWN[key]


def _operations(jaxpr: Any) -> int:
    return len(jaxpr.eqns) + sum(_operations(inner) for equation in jaxpr.eqns for inner in _inner(equation))


def _materialised(jaxpr: Any) -> Iterator[int]:
    """Bytes of the result of every operation of MATERIALISED."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in MATERIALISED:
            yield sum(prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
        else:
            for inner in _inner(equation):
                yield from _materialised(inner)


def _inner(equation: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for parameter in equation.params.values():
        for value in parameter if type(parameter) is tuple else [parameter]:
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield inner
