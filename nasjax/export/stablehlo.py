"""Export to StableHLO, which JAX runs without this package."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax import export
from jaxtyping import Array, PyTree

from nasjax.errors import ConfigError
from nasjax.supernets import SuperNet

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that an exported network runs on."""


def stablehlo(net: SuperNet, batch: int | None = None, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """An extracted network with its weights as a `jax.export` artifact for `batch` examples at a time (None: any number).

    `jax.export.deserialize(bytearray(artifact)).call(inputs)` returns its outputs. Raises ConfigError if flatbuffers, which
    JAX writes artifacts with, is not installed.
    """
    graph, weights = nnx.split(net)
    inputs = input_shapes(net, batch)
    made = export.export(jax.jit(lambda inputs: nnx.merge(graph, weights)(inputs)), platforms=platforms)(inputs)
    try:
        return bytes(made.serialize())
    except ModuleNotFoundError:
        raise ConfigError("StableHLO needs the package flatbuffers: pip install nasjax[export]") from None


def input_shapes(net: SuperNet, batch: int | None) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes of a network's inputs for `batch` examples (None: any number, a symbolic size)."""
    size = export.symbolic_shape("batch")[0] if batch is None else batch
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), net.inputs(1))


def run_stablehlo(file: Path, inputs: PyTree[np.ndarray]) -> PyTree[Array]:
    """The outputs of an exported network."""
    return export.deserialize(bytearray(file.read_bytes())).call(inputs)
