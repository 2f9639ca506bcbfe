"""Zero-cost proxies: scores of sub-networks from one gradient with the super-network's weights, without validation.

Higher is better. Each is jitted and vmapped over a population of masked sub-networks.
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
    """SynFlow: log of the sum of |weight x gradient| with absolute weights and an image of ones (arXiv:2006.05467).

    Every kernel is scaled by a constant, so that the product over all layers does not overflow float32. Batch norms have
    mean 0 and variance 1, as in arXiv:2101.08134.
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
            identity = jax.tree.map(jnp.zeros_like, net.stored())
            identity = tuple(
                {name: type(moments)(moments.mean, moments.variance + 1) for name, moments in stage.items()}
                for stage in identity
            )
            return net.forward(jnp.ones_like(jnp.asarray(images[:1])), arch, identity)[0].sum()

        slopes = jax.grad(total)(positives)
        flows = jax.tree.map(lambda value, slope: jnp.abs(value * slope).sum(), positives, slopes)
        return jnp.log(sum(jax.tree.leaves(flows)))

    return score


def jacobian(images: Images) -> OneScore:
    """Jacobian covariance: how much the logits' gradients differ between images (arXiv:2006.04647, version 1).

    The negative sum of log(v) + 1 / v over the eigenvalues v of the gradients' correlation matrix.
    """

    def score(graph: Any, weights: Any, arch: Array) -> Float[Array, ""]:
        net = nnx.merge(graph, weights)
        slopes = jax.grad(lambda images: net.forward(images, arch, None)[0].sum())(jnp.asarray(images))
        values = jnp.linalg.eigvalsh(jnp.corrcoef(slopes.reshape(len(images), -1)))
        values = jnp.maximum(values, 0) + 1e-5
        return -(jnp.log(values) + 1 / values).sum()

    return score


PROXIES = {"synflow": synflow, "jacobian": jacobian}
"""Every proxy by name."""


def proxies(net: SuperNet, inputs: PyTree, chunk: int, memory_gb: float) -> Mapping[str, Score]:
    """Every proxy as a function of any number of canonical architectures, compiled at its first call.

    Proxies need gradients by images: empty for networks whose inputs are not one float array. Scores at most `chunk`
    architectures at a time, fewer if the gradients exceed `memory_gb`, but at least one.
    """
    if not isinstance(inputs, np.ndarray) or not np.issubdtype(inputs.dtype, np.floating):
        return {}
    images = inputs
    graph, weights = nnx.split(net)

    @cache
    def chunk_size() -> int:
        """Computed at the first call, since it takes seconds for a full-size network."""
        return max(1, min(chunk, int(memory_gb * 1e9 // (len(images) * gradient_bytes(net)))))

    scores = {}
    for name, make in PROXIES.items():
        one = make(images)
        several = jax.jit(jax.vmap(lambda weights, arch, one=one: one(graph, weights, arch), in_axes=(None, 0)))
        scores[name] = _chunked(several, weights, chunk_size)
    return scores


def _chunked(several: Any, weights: Any, chunk_size: Callable[[], int]) -> Score:
    """`several`, run on chunks of the population that are padded to one size."""

    def score(archs: Population) -> Float[np.ndarray, " pop"]:
        chunk = chunk_size()
        archs = np.asarray(archs, np.int32)
        scores = [
            np.asarray(several(weights, np.resize(archs[i : i + chunk], (chunk, archs.shape[1]))))
            for i in range(0, len(archs), chunk)
        ]
        return np.concatenate(scores)[: len(archs)]

    return score
