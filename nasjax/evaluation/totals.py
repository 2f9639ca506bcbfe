"""Sums of additive statistics over examples, their second moments, and what follows: metrics with standard errors."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nasjax.tasks import Task


class Totals(NamedTuple):
    """Statistics summed over examples: their `weight`, the `sums`, and the second `moments` about the mean.

    Moments about the mean do not cancel as squares less the square of the mean do; those of parts are merged exactly (Chan,
    Golub and LeVeque 1983, The American Statistician 37). A population's have its axis in front.
    """

    weight: Float[Array | np.ndarray, "*pop"]
    sums: Float[Array | np.ndarray, "*pop stats"]
    moments: Float[Array | np.ndarray, "*pop stats stats"]


def batch_totals(
    statistics: Float[Array | np.ndarray, "batch stats"], weights: Float[Array | np.ndarray, " batch"]
) -> Totals:
    """Totals of one batch, NumPy or JAX as it comes; an example of weight 0 does not count, whatever its statistics."""
    numpy = np if isinstance(statistics, np.ndarray) else jnp
    counted = numpy.where((weights > 0)[:, None], statistics, 0)
    weight, sums = weights.sum(), (counted * weights[:, None]).sum(0)
    mean = sums / numpy.where(weight > 0, weight, 1)
    centred = (counted - mean[None]) * numpy.sqrt(weights)[:, None]
    product = np.matmul if numpy is np else partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return Totals(weight, sums, product(centred.T, centred))


def merged(parts: Totals) -> Totals:
    """Totals of all parts, which lie along the first axis, added in their order."""
    numpy = np if isinstance(parts.sums, np.ndarray) else jnp
    weight, sums = parts.weight.sum(0), parts.sums.sum(0)

    def mean(weight: Any, sums: Any) -> Any:
        return sums / numpy.where(weight > 0, weight, 1)[..., None]

    distance = numpy.where((parts.weight > 0)[..., None], mean(parts.weight, parts.sums) - mean(weight, sums)[None], 0)
    between = parts.weight[..., None, None] * distance[..., :, None] * distance[..., None, :]
    return Totals(weight, sums, (parts.moments + between).sum(0))


def both(first: Totals, second: Totals) -> Totals:
    """The totals of two parts together."""
    numpy = np if isinstance(first.sums, np.ndarray) else jnp
    return merged(Totals(*(numpy.stack(pair) for pair in zip(first, second, strict=True))))


def in_float64(totals: Totals) -> Totals:
    """On the host, where sums over many blocks are kept."""
    return Totals(*(np.asarray(part, np.float64) for part in totals))


def no_totals(population: int, stats: int) -> Totals:
    """Before the first example."""
    return Totals(np.zeros(population), np.zeros((population, stats)), np.zeros((population, stats, stats)))


def metric_function(task: Task) -> Callable[[Totals], dict[str, Float[np.ndarray, " pop"]]]:
    """Totals of a population -> every metric of the task, and `<metric>_se`, its standard error by the delta method.

    The covariance of the sums is weight / (weight - 1) times their moments; errors of a mean are those of its sample.
    """
    names = [objective.name for objective in task.objectives]

    def values(sums: Float[Array, " stats"]) -> Float[Array, " metrics"]:
        found: Mapping[str, Any] = task.metrics(sums)
        return jnp.stack([jnp.asarray(found[name], sums.dtype) for name in names])

    @jax.jit
    def with_slopes(sums: Float[Array, " stats"]) -> tuple[Float[Array, " metrics"], Float[Array, "metrics stats"]]:
        return values(sums), jax.jacrev(values)(sums)

    def described(totals: Totals) -> dict[str, Float[np.ndarray, " pop"]]:
        # One row at a time: nothing compiles again for another number of rows. float64 needs a CPU, which every host has.
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            rows = [tuple(map(np.asarray, with_slopes(np.asarray(sums, np.float64)))) for sums in totals.sums]
        metrics = np.array([row[0] for row in rows]).reshape(-1, len(names))
        slopes = np.array([row[1] for row in rows]).reshape(len(metrics), len(names), totals.sums.shape[1])
        covariance = totals.moments * (totals.weight / np.maximum(totals.weight - 1, 1))[:, None, None]
        variances = np.einsum("pms,pst,pmt->pm", slopes, covariance, slopes)
        errors = np.sqrt(np.maximum(variances, 0))
        found = {name: metrics[:, i] for i, name in enumerate(names)}
        return found | {f"{name}_se": errors[:, i] for i, name in enumerate(names)}

    return described
