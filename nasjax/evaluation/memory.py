"""What evaluation takes of the memory: what fits is planned before anything is measured."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from nasjax.errors import ConfigError
from nasjax.supernets.stage import SuperNet

PICTURES = 0.25
"""The share of the memory that the pictures to be scored may take at once."""

COMPILER = 90_000
"""Bytes that compiling a step takes; measured for MobileNetV3: 84,000 at 224 pixels, 100,000 at 32. ResNet50's few steps
take 200,000, less together than its activations are overrated by."""

KEPT = 0.4
"""The share of it that each further resolution takes: what its programs keep. Measured for MobileNetV3: 0.37."""

WHOLE = ("dot_general", "conv_general_dilated", "cond", "scan", "while")
"""The steps whose results stand in memory: XLA computes all between them on the way."""

ALIVE = 6
"""How many of the largest such results may be alive at once; re-calibration on a CPU: 3 (MobileNetV3) to 6 (ResNet50)."""

CPU_BYTES = 1.6e7
"""What the activations of a chunk may take on a CPU: more leave its caches, and kernels that differ are slow there."""


class TooLarge(ConfigError):
    """The memory does not hold one network."""


class Needs(NamedTuple):
    """What a way of evaluation takes: bytes for each picture of one sub-network, and for compiling.

    `together` says that the sub-networks of a chunk run at once; else one after the other, in the memory of one.
    """

    picture: int
    compiling: int
    together: bool


class Plan(NamedTuple):
    """How many pictures are scored at a time, how many sub-networks run at once, bytes for a block of pictures and left."""

    batch: int
    chunk: int
    room: float
    spare: float


def plan(config: Any, needs: Needs, net: SuperNet, calibration: Array | np.ndarray, pictures: int) -> Plan:
    """What fits the memory of the evaluator's settings, `pictures` being there to be scored: by one device,
    where several share them.

    Scores are means over pictures, so that fewer at a time change nothing but rounding; moments are those of a batch, which
    cannot be cut apart: raises TooLarge where one network does not fit on a batch of `calibration`.
    """
    together = calibration.shape[1]
    picture = calibration[0, 0].nbytes
    each = needs.picture
    # Masked weights are each sub-network's own; the library lays them out anew, and packs them.
    weights = 3 * sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(net)))
    # Of what is compiled for one resolution a part stays while the others are.
    taken = calibration.nbytes + needs.compiling * (1 + KEPT * (max(1, len(net.resolutions)) - 1))
    free = config.memory_gb * 1e9 - taken - weights
    batch = int(min(config.batch, pictures, free // (each + picture), (free - together * each) // picture))
    if batch < 1:
        fits = int((free - picture) // each)
        advice = f"evaluator.batch={fits} does, or more memory" if fits > 0 else "nor on one; more memory does"
        raise TooLarge(
            f"evaluator.memory_gb={config.memory_gb} does not hold one network on the evaluator.batch={together} pictures "
            f"that re-calibrate it together, which take {(together * each + picture + weights + taken) / 1e9:.2g}; {advice}"
        )
    activations = max(batch, together) * each
    everything = -(-pictures // batch) * batch * picture
    room = max(batch * picture, min(PICTURES * config.memory_gb * 1e9, free - activations, everything))
    spare = config.memory_gb * 1e9 - taken - room
    if not needs.together:
        return Plan(batch, config.chunk, room, max(0, spare - activations - weights))
    fit = int(spare // (activations + weights))
    quick = int(max(1, CPU_BYTES // activations)) if jax.default_backend() == "cpu" else fit
    return Plan(batch, max(1, min(config.chunk, fit, quick)), room, 0)


def network_bytes(net: SuperNet) -> int:
    """Memory of the largest network for one picture: the picture and the ALIVE largest results of WHOLE steps."""
    picture = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(net.example()))
    return picture + sum(sorted(_whole(_jaxpr(net)), reverse=True)[:ALIVE])


def gradient_bytes(net: SuperNet) -> int:
    """Memory of a gradient of the largest network for one picture: twice the results of all WHOLE steps."""
    return 2 * sum(_whole(_jaxpr(net)))


def compiler_bytes(net: SuperNet, seen: Callable[[SuperNet], Any] = lambda net: net) -> int:
    """What compiling takes beside: so much for every step, those within others included; `seen` is what runs forward."""
    return COMPILER * _steps(_jaxpr(net, seen))


def _jaxpr(net: SuperNet, seen: Callable[[SuperNet], Any] = lambda net: net) -> Any:
    largest = jnp.asarray(net.space.largest())
    return jax.make_jaxpr(lambda x: seen(net).forward(x, largest, net.stored())[0])(net.example()).jaxpr


def _steps(jaxpr: Any) -> int:
    return len(jaxpr.eqns) + sum(_steps(inner) for equation in jaxpr.eqns for inner in _inner(equation))


def _whole(jaxpr: Any) -> Iterator[int]:
    """Bytes of the result of every step of WHOLE."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in WHOLE:
            yield sum(prod(v.aval.shape) * v.aval.dtype.itemsize for v in equation.outvars)
        else:
            for inner in _inner(equation):
                yield from _whole(inner)


def _inner(equation: Any) -> Iterator[Any]:
    """The jaxprs among an equation's parameters."""
    for parameter in equation.params.values():
        for value in parameter if type(parameter) is tuple else [parameter]:
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield inner
