"""Export to StableHLO, which JAX runs without this package."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import export
from jaxtyping import Array, PyTree

from nasjax.errors import ConfigError
from nasjax.export.programs import Program, whole
from nasjax.supernets import SuperNet

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that an exported network runs on."""


def stablehlo(net: SuperNet, batch: int | None = None, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """An extracted network with its weights as a `jax.export` artifact for `batch` examples at a time (None: any number).

    `jax.export.deserialize(bytearray(artifact)).call(inputs)` returns its outputs. Raises ConfigError if flatbuffers, which
    JAX writes artifacts with, is not installed.
    """
    return program_to_stablehlo(net, whole(net, batch), platforms)


def program_to_stablehlo(net: SuperNet, program: Program, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """A program of an extracted network, as `stablehlo` does the whole."""
    graph, weights = nnx.split(net)
    function = jax.jit(lambda inputs: program.function(nnx.merge(graph, weights), inputs))
    made = export.export(function, platforms=platforms)(program.inputs)
    try:
        return bytes(made.serialize())
    except ModuleNotFoundError:
        raise ConfigError("StableHLO needs the package flatbuffers: pip install nasjax[export]") from None


def load_stablehlo(file: Path) -> Callable[[Any], Any]:
    """The function in a file."""
    return export.deserialize(bytearray(file.read_bytes())).call


def run_stablehlo(file: Path, inputs: PyTree[np.ndarray]) -> PyTree[Array]:
    """The outputs of an exported network."""
    return load_stablehlo(file)(inputs)
