"""Zero-cost scores of sub-networks: from one gradient with the super-network's weights, without training or validation.

More is better. Each is jitted over a population, sub-networks by masks.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PyTree

from nasjax.evaluation.memory import gradient_bytes
from nasjax.supernets.supernet import SuperNet
from nasjax.types import Images, Population

Score = Callable[[Population], Float[np.ndarray, " pop"]]

OneScore = Callable[[nnx.GraphDef, Any, Array], Float[Array, ""]]
"""(graph, weights, arch) -> score."""


def synflow(images: Images) -> OneScore:
    """log of the sum of |weight x gradient| where all weights are positive and the image is ones (arXiv:2006.05467).

    Every kernel is divided by a constant of its own, so that float32 holds the products of all layers; batch norms pass
    what they get, as in arXiv:2101.08134.
    """

    def positive(path: Any, weight: Array) -> Array:
        weight = jnp.abs(weight)
        inputs = weight.size // weight.shape[-1]
        return (
            weight / jnp.maximum(weight.mean() * inputs, 1e-12) if weight.ndim > 1 and "transforms" not in path else weight
        )

    def score(graph: Any, weights: Any, arch: Array) -> Float[Array, ""]:
        kinds, values, rest = nnx.split(nnx.merge(graph, weights), nnx.Param, nnx.BatchStat)  # type: ignore[misc]
        flat = nnx.to_flat_state(values)
        positives = nnx.from_flat_state([(path, leaf.replace(positive(path, leaf[...]))) for path, leaf in flat])

        def total(values: Any) -> Float[Array, ""]:
            net = nnx.merge(kinds, values, rest)
            passing = jax.tree.map(jnp.zeros_like, net.stored())
            passing = tuple(
                {name: type(moments)(moments.mean, moments.variance + 1) for name, moments in stage.items()}
                for stage in passing
            )
            return net.forward(jnp.ones_like(jnp.asarray(images[:1])), arch, passing)[0].sum()

        slopes = jax.grad(total)(positives)
        flows = jax.tree.map(lambda value, slope: jnp.abs(value * slope).sum(), positives, slopes)
        return jnp.log(sum(jax.tree.leaves(flows)))

    return score


def jacobian(images: Images) -> OneScore:
    """How different the slopes of the logits are from image to image (arXiv:2006.04647, version 1).

    Less the sum of log(v) + 1 / v over the eigenvalues v of their correlation matrix.
    """

    def score(graph: Any, weights: Any, arch: Array) -> Float[Array, ""]:
        net = nnx.merge(graph, weights)
        slopes = jax.grad(lambda images: net.forward(images, arch, None)[0].sum())(jnp.asarray(images))
        values = jnp.linalg.eigvalsh(jnp.corrcoef(slopes.reshape(len(images), -1)))
        values = jnp.maximum(values, 0) + 1e-5
        return -(jnp.log(values) + 1 / values).sum()

    return score


PROXIES = {"synflow": synflow, "jacobian": jacobian}
"""The scores by name."""


def proxies(net: SuperNet, inputs: PyTree, chunk: int, memory_gb: float) -> Mapping[str, Score]:
    """Every score as a function of any number of canonical architectures; compiled when first asked.

    They are slopes by images: for networks that read one float array; others have none.

    At most `chunk` at a time, fewer where `memory_gb` does not hold their gradients, but never less than one.
    """
    if not isinstance(inputs, np.ndarray) or not np.issubdtype(inputs.dtype, np.floating):
        return {}
    images = inputs
    graph, weights = nnx.split(net)

    @cache
    def fitting() -> int:
        """Counted when first asked: a full-size network takes seconds."""
        return max(1, min(chunk, int(memory_gb * 1e9 // (len(images) * gradient_bytes(net)))))

    found = {}
    for name, make in PROXIES.items():
        one = make(images)
        several = jax.jit(jax.vmap(lambda weights, arch, one=one: one(graph, weights, arch), in_axes=(None, 0)))
        found[name] = _chunked(several, weights, fitting)
    return found


def _chunked(several: Any, weights: Any, fitting: Callable[[], int]) -> Score:
    def score(archs: Population) -> Float[np.ndarray, " pop"]:
        chunk = fitting()
        archs = np.asarray(archs, np.int32)
        scores = [
            np.asarray(several(weights, np.resize(archs[i : i + chunk], (chunk, archs.shape[1]))))
            for i in range(0, len(archs), chunk)
        ]
        return np.concatenate(scores)[: len(archs)]

    return score
