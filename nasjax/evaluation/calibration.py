"""Batch-norm re-calibration of one sub-network, as in Once-for-All."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, PyTree

from nasjax.supernets import SuperNet
from nasjax.supernets.elastic import RECALIBRATE
from nasjax.supernets.runner import StagedNetwork
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions


def calibrate(
    net: SuperNet | StagedNetwork, arch: Choice, batches: PyTree[Float[Array, "batches batch ..."]], host: HostOptions = ()
) -> tuple[Statistics, ...]:
    """Means over batches of each batch norm's batch mean and biased batch variance; every norm uses the batch's own.

    `batches`: inputs, each batch of which is prepared for the `host` options (scaled, for images).

    Source: `set_running_statistics` of Once-for-All (arXiv:1908.09791).
    """

    def batch_statistics(inputs: PyTree) -> tuple[Statistics, ...]:
        return net.forward(net.prepare(inputs, host), arch, RECALIBRATE)[1]

    first = jax.tree.map(lambda leaf: leaf[0], batches)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(batch_statistics, first))

    def add(total: tuple[Statistics, ...], inputs: PyTree) -> tuple[tuple[Statistics, ...], None]:
        return jax.tree.map(jnp.add, total, batch_statistics(inputs)), None

    total, _ = lax.scan(add, zero, batches)
    number = len(jax.tree.leaves(batches)[0])
    return jax.tree.map(lambda moment: moment / number, total)


def calibrate_by_batches(
    net: SuperNet, arch: Choice, inputs: PyTree, batch: int, host: HostOptions = ()
) -> tuple[Statistics, ...]:
    """As `calibrate`, on the whole batches of any number of examples: one batch at a time is put on the device.

    `inputs`: examples first, as a `Split` has them, arrays or images in files.
    """
    graph, weights = nnx.split(net)

    @jax.jit
    def add(total: tuple[Statistics, ...], weights: nnx.State, inputs: PyTree) -> tuple[Statistics, ...]:
        net = nnx.merge(graph, weights)
        return jax.tree.map(jnp.add, total, net.forward(net.prepare(inputs, host), arch, RECALIBRATE)[1])

    total = jax.tree.map(jnp.zeros_like, net.stored())
    number = len(jax.tree.leaves(inputs)[0]) // batch
    for i in range(number):
        total = add(total, weights, jax.tree.map(lambda leaf, i=i: leaf[i * batch : (i + 1) * batch], inputs))
    return jax.tree.map(lambda moment: moment / number, total)
