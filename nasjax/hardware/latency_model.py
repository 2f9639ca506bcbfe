"""Latencies that are estimated: a table or another device's model put right by a few measurements, or a predictor alone.

The logarithm is predicted: latencies vary in proportion. What is known beforehand (a table's sum, another device's latency)
enters by offset and scale; a predictor of what these leave over is kept where it is clearly better on held-out networks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors import Errors, Inputs, Predictor, errors
from nasjax.types import Population

CLEARLY = 0.8
"""The share of the squared error that a predictor of the rest must not exceed to be kept."""

LEAST = 0.1
"""No estimate is below this share of the smallest latency measured: a logarithm is taken of it."""

SAMPLE = 512
"""Architectures by which the dearest is judged."""

Known = Callable[[Population], Float[Array, "pop columns"]]
"""What is known of architectures beforehand, jittable; each column grows with the latency."""


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Estimated latencies in milliseconds: `estimate` inside jit, `exact` the same on the host.

    latency = (weights . [1, known]) exp(rest), the rest by `predictor`; `rows` networks were measured to fit it. `errors`
    are those on networks that were measured and held out; None where there were none.
    """

    inputs: Inputs
    predictor: Predictor
    known: Known | None
    weights: Float[ndarray, " columns"]
    least: float
    rest: Any
    rows: int
    errors: Errors | None = None

    def estimate(self, archs: Population) -> Float[Array, " pop"]:
        """Milliseconds in float32."""
        archs = jnp.asarray(archs)
        lines = jnp.log(self._line(archs))
        if self.rest is not None:
            lines += self.predictor.predict(self.inputs, self.rest, archs)[0]
        return jnp.exp(lines)

    def _line(self, archs: Population) -> Float[Array, " pop"]:
        """Offset and scale of what is known."""
        weights = jnp.asarray(self.weights, jnp.float32)
        columns = jnp.zeros((len(archs), 0)) if self.known is None else self.known(archs)
        return jnp.maximum(weights[0] + (columns * weights[None, 1:]).sum(1), self.least)

    def exact(self, archs: Population) -> Float[ndarray, " pop"]:
        """Milliseconds in float64, for what is stored."""
        # Not jitted as a whole: each model would be compiled anew, while a predictor's own function is compiled once.
        return np.asarray(self.estimate(np.asarray(archs, np.int32)), np.float64)

    def maximum(self) -> float:
        """About the dearest network's: a tenth more than the largest estimate of the largest architecture and a sample."""
        space = self.inputs.space
        archs = np.concatenate([space.largest()[None], np.asarray(space.sample(jax.random.key(0), SAMPLE))])
        return 1.1 * float(self.exact(archs).max())

    def column(self, archs: Population) -> Float[Array, "pop 1"]:
        """The estimate as what is known beforehand of another device."""
        return self.estimate(archs)[:, None]


def fit_latency(
    predictor: Predictor,
    inputs: Inputs,
    archs: Population,
    milliseconds: Float[ndarray, " pop"],
    known: Known | None = None,
    held_out: tuple[Population, Float[ndarray, " pop"]] | None = None,
) -> LatencyModel:
    """A model of measured networks; rows that are not finite are left out.

    `known` gives what a table or another device says beforehand; without it the predictor is alone. Raises ConfigError for
    fewer than three measured networks.
    """
    archs, milliseconds = np.asarray(archs, np.int32), np.asarray(milliseconds, np.float64)
    there = np.isfinite(milliseconds) & (milliseconds > 0)
    archs, milliseconds = archs[there], milliseconds[there]
    if len(archs) < 3:
        raise ConfigError(f"a latency model needs three measured networks or more, not {len(archs)}")
    weights = _line(known, archs, milliseconds)
    model = LatencyModel(inputs, predictor, known, weights, LEAST * float(milliseconds.min()), None, len(archs))
    rest = np.log(milliseconds / model.exact(archs)).astype(np.float32)
    fitted = predictor.fit(inputs, archs, rest)
    missed = np.mean((np.asarray(fitted.held_out) - rest) ** 2)
    if known is None or missed < CLEARLY * np.mean(rest**2):
        model = LatencyModel(inputs, predictor, known, weights, model.least, fitted, len(archs))
    if held_out is None:
        return model
    found = errors(held_out[1], model.exact(held_out[0]))
    return LatencyModel(inputs, predictor, known, weights, model.least, model.rest, len(archs), found)


def _line(known: Known | None, archs: Population, milliseconds: Float[ndarray, " pop"]) -> Float[ndarray, " columns"]:
    """Offset and scales with the least squares of relative errors; without columns the median.

    More than one column needs more than a few networks: below ten, the first alone has a scale.
    """
    if known is None:
        return np.array([np.median(milliseconds)])
    columns = np.asarray(known(archs), np.float64)
    used = columns if len(archs) >= 10 else columns[:, :1]
    matrix = np.concatenate([np.ones((len(archs), 1)), used], axis=1) / milliseconds[:, None]
    unit = np.linalg.norm(matrix, axis=0) + 1e-30
    weights = np.linalg.lstsq(matrix / unit, np.ones(len(archs)), rcond=1e-6)[0] / unit
    if weights[1] <= 0:  # What is known says nothing, or the opposite.
        return np.append(np.median(milliseconds), np.zeros(columns.shape[1]))
    return np.append(weights, np.zeros(columns.shape[1] - used.shape[1]))
