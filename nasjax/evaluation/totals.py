"""Totals: sums of additive statistics over examples and their second moments; metrics and standard errors from them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nasjax.tasks import Task


class Totals(NamedTuple):
    """Statistics summed over examples: the total `weight`, the `sums`, and the second `moments` about the mean.

    Moments about the mean avoid the cancellation of mean squares minus squared means, and merge exactly (Chan, Golub and
    LeVeque 1983, The American Statistician 37). For a population, its axis comes first.
    """

    weight: Float[Array | np.ndarray, "*pop"]
    sums: Float[Array | np.ndarray, "*pop stats"]
    moments: Float[Array | np.ndarray, "*pop stats stats"]


def batch_totals(
    statistics: Float[Array | np.ndarray, "batch stats"], weights: Float[Array | np.ndarray, " batch"]
) -> Totals:
    """Totals of one batch, by NumPy or JAX as its arrays are; examples of weight 0 are ignored, NaN included."""
    numpy = np if isinstance(statistics, np.ndarray) else jnp
    counted = numpy.where((weights > 0)[:, None], statistics, 0)
    weight, sums = weights.sum(), (counted * weights[:, None]).sum(0)
    mean = sums / numpy.where(weight > 0, weight, 1)
    centred = (counted - mean[None]) * numpy.sqrt(weights)[:, None]
    product = np.matmul if numpy is np else partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    return Totals(weight, sums, product(centred.T, centred))


def merged(parts: Totals) -> Totals:
    """The totals of all parts, which are stacked along the first axis, in this order."""
    numpy = np if isinstance(parts.sums, np.ndarray) else jnp
    weight, sums = parts.weight.sum(0), parts.sums.sum(0)

    def mean(weight: Any, sums: Any) -> Any:
        return sums / numpy.where(weight > 0, weight, 1)[..., None]

    distance = numpy.where((parts.weight > 0)[..., None], mean(parts.weight, parts.sums) - mean(weight, sums)[None], 0)
    between = parts.weight[..., None, None] * distance[..., :, None] * distance[..., None, :]
    return Totals(weight, sums, (parts.moments + between).sum(0))


def both(first: Totals, second: Totals) -> Totals:
    """The totals of two parts."""
    numpy = np if isinstance(first.sums, np.ndarray) else jnp
    return merged(Totals(*(numpy.stack(pair) for pair in zip(first, second, strict=True))))


def stacked(parts: Sequence[Totals]) -> Totals:
    """Totals on the host, stacked along a new first axis."""
    return Totals(*(np.stack(leaves) for leaves in zip(*parts, strict=True)))


def in_float64(totals: Totals) -> Totals:
    """The totals as float64 on the host, to be summed over many blocks."""
    return Totals(*(np.asarray(part, np.float64) for part in totals))


def metric_function(task: Task) -> Callable[[Totals], dict[str, Float[np.ndarray, " pop"]]]:
    """A function from a population's totals to every metric of the task, and `<metric>_se`, its standard error.

    Standard errors follow by the delta method; the covariance of the sums is weight / (weight - 1) times their moments.
    """
    names = [objective.name for objective in task.objectives]

    def values(sums: Float[Array, " stats"]) -> Float[Array, " metrics"]:
        metrics: Mapping[str, Any] = task.metrics(sums)
        return jnp.stack([jnp.asarray(metrics[name], sums.dtype) for name in names])

    @jax.jit
    def with_gradients(sums: Float[Array, " stats"]) -> tuple[Float[Array, " metrics"], Float[Array, "metrics stats"]]:
        return values(sums), jax.jacrev(values)(sums)

    def with_errors(totals: Totals) -> dict[str, Float[np.ndarray, " pop"]]:
        # Row by row: another number of rows compiles nothing again. On the CPU: not all devices have float64.
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            rows = [tuple(map(np.asarray, with_gradients(np.asarray(sums, np.float64)))) for sums in totals.sums]
        metrics = np.array([row[0] for row in rows]).reshape(-1, len(names))
        gradients = np.array([row[1] for row in rows]).reshape(len(metrics), len(names), totals.sums.shape[1])
        covariance = totals.moments * (totals.weight / np.maximum(totals.weight - 1, 1))[:, None, None]
        variances = np.einsum("pms,pst,pmt->pm", gradients, covariance, gradients)
        errors = np.sqrt(np.maximum(variances, 0))
        values_by_name = {name: metrics[:, i] for i, name in enumerate(names)}
        return values_by_name | {f"{name}_se": errors[:, i] for i, name in enumerate(names)}

    return with_errors
