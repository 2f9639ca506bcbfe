"""Memory planning: batch and chunk sizes that fit memory, chosen before anything is measured."""

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
from nasjax.jaxprs import inner_jaxprs, jaxpr_macs
from nasjax.supernets import SuperNet
from nasjax.types import Arch

EXAMPLES_SHARE = 0.25
"""The share of memory that one block of examples may take."""

COMPILER_BYTES = 90_000
"""Bytes that compiling one operation takes. Measured for MobileNetV3: 84,000 at 224 pixels, 100,000 at 32. ResNet50's few
operations take 200,000, which its overestimated activations make up for."""

PROGRAMS_SHARE = 0.4
"""The share of the compiler's bytes that each further combination of host options adds: its compiled programs. Measured for
MobileNetV3's resolutions: 0.37."""

MATERIALISED = ("dot_general", "conv_general_dilated", "cond", "scan", "while")
"""Operations whose results XLA writes to memory; it fuses those between them."""

ALIVE = 6
"""How many of the largest such results are in memory at once; re-calibration on a CPU: 3 (MobileNetV3) to 6 (ResNet50)."""

ALIVE_CACHES = 3
"""How many copies of a decoding step's caches and scores are in memory at once: before, after, and one that is changed."""


class TooLarge(ConfigError):
    """Memory is too small for one network."""


class Needs(NamedTuple):
    """Bytes that a strategy takes: for each example of one sub-network, and for compiling.

    `together`: the sub-networks of a chunk run at once; else one after the other, in the memory of one.
    """

    example: int
    compiling: int
    together: bool


class Plan(NamedTuple):
    """Examples in a batch, sub-networks run at once, bytes for a block of examples, and bytes to spare."""

    batch: int
    chunk: int
    room: float
    spare: float


def plan(
    config: Any, needs: Needs, net: SuperNet, calibration: PyTree[Array | np.ndarray], inputs: PyTree, number: int
) -> Plan:
    """The sizes that fit the settings' `memory_gb`, for `number` examples like `inputs` to be scored on each device.

    Scores are sums over examples, so that a smaller batch changes only their rounding. Re-calibration needs the moments of
    whole batches: raises TooLarge if one network on a batch of `calibration` does not fit.
    """
    leaves = jax.tree.leaves(calibration)
    together = leaves[0].shape[1] if leaves else 1
    example, each = example_bytes(inputs), needs.example
    # Every sub-network has masked weights; the library makes a copy in its layout, and packs that.
    weights = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(net)))
    on_host = jax.default_backend() == "cpu"  # Compiling takes the host's memory, which is the device's on CPUs.
    # A part of what is compiled for one combination of host options stays while others are compiled.
    compiling = on_host * needs.compiling * (1 + PROGRAMS_SHARE * (len(net.all_hosts()) - 1))
    taken = sum(leaf.nbytes for leaf in leaves) + compiling
    free = config.memory * 1e9 - taken - weights
    batch = int(min(config.scored_at_a_time, number, free // (each + example), (free - together * each) // example))
    if batch < 1:
        fits = int((free - example) // each)
        advice = "nor does one example fit: more memory is needed"
        if fits > 0:
            advice = f"set evaluator.batch={fits}, or allow more memory"
        raise TooLarge(
            f"evaluator.memory_gb={config.memory:g} is too small to re-calibrate one network on a batch of "
            f"evaluator.batch={together}, which takes {(together * each + example + weights + taken) / 1e9:.2g} GB; {advice}"
        )
    activations = max(batch, together) * each
    everything = -(-number // batch) * batch * example
    room = max(batch * example, min(EXAMPLES_SHARE * config.memory * 1e9, free - activations, everything))
    spare = config.memory * 1e9 - taken - room
    if not needs.together:
        return Plan(batch, config.chunk, room, max(0, spare - activations - weights))
    fit = int(spare // (activations + weights))
    return Plan(batch, max(1, min(config.chunk, fit)), room, 0)


def example_macs(net: SuperNet, arch: Arch) -> int:
    """Multiply-accumulates of one example in one sub-network; of all tokens of a sequence together."""
    choice = tuple(map(int, arch))
    return jaxpr_macs(jax.make_jaxpr(lambda x: net.forward(x, choice, None)[0])(net.example()).jaxpr)


def network_bytes(net: SuperNet) -> int:
    """Bytes of the largest network for one example: its inputs and the ALIVE largest MATERIALISED results."""
    return example_bytes(net.example()) + sum(sorted(_sizes(net).results, reverse=True)[:ALIVE])


def decoding_bytes(net: SuperNet, inputs: PyTree[Array | np.ndarray], steps: int, beams: int) -> int:
    """Bytes that decoding `steps` tokens of `beams` takes for one example like `inputs`; 0 for a network without steps.

    The largest network's caches, of which a loop holds ALIVE_CACHES, and as many scores of a step's words.
    """
    if net.first_repeated == len(net.stages):
        return 0
    largest = tuple(map(int, net.space.largest()))
    shapes = net.shapes(steps, beams)
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), inputs)
    graph, weights = nnx.split(shapes)

    def step(weights: Any, inputs: PyTree) -> Any:
        net = nnx.merge(graph, weights)
        carry = net.begin(net.forward(inputs, largest, None, stop=net.first_repeated)[0])
        tokens = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), net.tokens(1))
        return net.forward((tokens, carry), largest, None, start=net.first_repeated)[0]

    return ALIVE_CACHES * example_bytes(jax.eval_shape(step, weights, one))


def gradient_bytes(net: SuperNet) -> int:
    """Bytes of a gradient of the largest network for one example: twice all MATERIALISED results."""
    return 2 * sum(_sizes(net).results)


def compiler_bytes(net: SuperNet, wrapped: Callable[[SuperNet], Any] = lambda net: net) -> int:
    """Bytes that compiling `wrapped(net).forward` takes: COMPILER_BYTES for every operation."""
    return COMPILER_BYTES * operations(net, wrapped)


def operations(net: SuperNet, wrapped: Callable[[SuperNet], Any] = lambda net: net) -> int:
    """The number of operations in `wrapped(net).forward`, nested ones included."""
    return _sizes(net, wrapped).operations


class Sizes(NamedTuple):
    """A network's number of operations, and the bytes of every MATERIALISED result for one example."""

    operations: int
    results: tuple[int, ...]


_SIZES: dict[Any, Sizes] = {}
"""Sizes of networks that have been traced: every evaluator of a network needs them."""


def _sizes(net: SuperNet, wrapped: Callable[[SuperNet], Any] = lambda net: net) -> Sizes:
    """The sizes of a network whose `forward` is that of `wrapped(net)`."""
    stages = [nnx.split(nnx.eval_shape(lambda stage=stage: stage)) for stage in net.stages]  # type: ignore[misc]
    shapes = [(leaf.shape, str(leaf.dtype)) for _, weights in stages for leaf in jax.tree.leaves(weights)]
    key = (
        getattr(wrapped, "__qualname__", ""),
        type(net),
        str(net.example()),
        repr([graph for graph, _ in stages]),
        str(shapes),
    )
    if key not in _SIZES:
        largest = jnp.asarray(net.space.largest())
        jaxpr = jax.make_jaxpr(lambda x: wrapped(net).forward(x, largest, net.stored())[0])(net.example()).jaxpr
        _SIZES[key] = Sizes(_count(jaxpr), tuple(_materialised(jaxpr)))
    return _SIZES[key]


def _count(jaxpr: Any) -> int:
    """The number of operations in a jaxpr, nested ones included."""
    return len(jaxpr.eqns) + sum(_count(inner) for equation in jaxpr.eqns for inner in inner_jaxprs(equation.params))


def _materialised(jaxpr: Any) -> Iterator[int]:
    """Bytes of the results of every MATERIALISED operation."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in MATERIALISED:
            yield sum(prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
        else:
            for inner in inner_jaxprs(equation.params):
                yield from _materialised(inner)
