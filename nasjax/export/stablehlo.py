"""StableHLO, which any JAX runs without this package."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export
from jaxtyping import Array, Float

from nasjax.errors import ConfigError
from nasjax.supernets import SuperNet

PLATFORMS = ("cpu", "cuda", "tpu")
"""What an exported network runs on."""


def stablehlo(net: SuperNet, batch: int | None = None, platforms: Sequence[str] = PLATFORMS) -> bytes:
    """An extracted network with its weights as a `jax.export` artifact for `batch` pictures at a time (None: any number).

    `jax.export.deserialize(bytearray(artifact)).call(images)` are its logits. Raises ConfigError where flatbuffers, which
    JAX writes the artifact with, is not installed.
    """
    graph, weights = nnx.split(net)
    size = export.symbolic_shape("batch")[0] if batch is None else batch
    images = jax.ShapeDtypeStruct((size, *net.inputs(1).shape[1:]), jnp.float32)
    made = export.export(jax.jit(lambda images: nnx.merge(graph, weights)(images)), platforms=platforms)(images)
    try:
        return bytes(made.serialize())
    except ModuleNotFoundError:
        raise ConfigError("StableHLO needs the package flatbuffers: pip install nasjax[export]") from None


def run_stablehlo(file: Path, images: Float[np.ndarray, "batch height width channels"]) -> Float[Array, "batch classes"]:
    """What an exported network answers."""
    return export.deserialize(bytearray(file.read_bytes())).call(images)
