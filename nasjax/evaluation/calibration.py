"""Batch-norm statistics for one sub-network, as Once-for-All re-calibrates them."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from nasjax.evaluation.host_genes import resized
from nasjax.supernets.cpu.micro_batches import recalibrating
from nasjax.supernets.stage import Choice, Statistics, SuperNet


def calibrate(
    net: SuperNet, arch: Choice, batches: Float[Array, "batches batch height width channels"], size: int | None = None
) -> tuple[Statistics, ...]:
    """Averages, over batches, of each batch norm's batch mean and biased batch variance; every norm uses the batch's own.

    With `size` every batch is scaled to so many pixels when its turn comes.

    Source: `set_running_statistics` of Once-for-All (arXiv:1908.09791).
    """

    def moments(images):
        with recalibrating():
            return net.forward(resized(images, size), arch, None)[1]

    zero = jax.tree.map(jnp.zeros_like, net.stored())

    def add(total, images):
        return jax.tree.map(jnp.add, total, moments(images)), None

    total, _ = lax.scan(add, zero, batches)
    return jax.tree.map(lambda moment: moment / len(batches), total)
