"""Networks that compute in 16 bits: matrices, kernels and maps; batch norms, biases and sums stay in 32."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from nasjax.supernets.supernet import SuperNet


def in_bfloat16(tree: PyTree) -> PyTree:
    """Float32 arrays of two axes and more in bfloat16: the kernels and matrices of weights, or inputs."""
    return jax.tree.map(
        lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 and leaf.ndim > 1 else leaf, tree
    )


def in_float32(tree: PyTree) -> PyTree:
    """Bfloat16 arrays, such as the outputs of a network in 16 bits, in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, tree)


def network_in_bfloat16(net: SuperNet) -> SuperNet:
    """A copy of a network whose layers compute in 16 bits."""
    graph, weights, rest = nnx.split(net, nnx.Param, ...)  # type: ignore[misc]
    return nnx.merge(graph, in_bfloat16(weights), rest)
