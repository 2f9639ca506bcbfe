"""Batch-norm statistics for one sub-network, as Once-for-All re-calibrates them."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nasjax.supernets.stage import Choice, Statistics, SuperNet


def calibrate(
    net: SuperNet, arch: Choice, batches: Float[Array, "batches batch height width channels"]
) -> tuple[Statistics, ...]:
    """Averages, over batches, of each batch norm's batch mean and biased batch variance; every norm uses the batch's own.

    Source: `set_running_statistics` of Once-for-All (arXiv:1908.09791).
    """
    first = jax.eval_shape(lambda images: net.forward(images, arch, None)[1], batches[0])
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), first)

    def add(total, images):
        return jax.tree.map(jnp.add, total, net.forward(images, arch, None)[1]), None

    total, _ = lax.scan(add, zero, batches)
    return jax.tree.map(lambda moment: moment / len(batches), total)
