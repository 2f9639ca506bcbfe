"""Latency model: a prior (a latency table's sum, or another device's model) calibrated on measured networks.

Without a prior, a predictor learns latencies from measured networks alone. Errors of latencies are relative, so predictors
see logarithms. A prior is fitted with an offset and scales; a predictor of the remaining residual is kept only if it is
clearly better on held-out networks.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors import Errors, Inputs, Predictor, errors
from nasjax.types import Population

MAX_RESIDUAL_ERROR = 0.8
"""The residual predictor is kept if its squared error is below this share of the error without it."""

FLOOR_SHARE = 0.1
"""Smallest estimate, as a share of the smallest measured latency: logarithms need a positive number."""

MAXIMUM_SAMPLES = 512
"""Number of random architectures by which the maximum latency is estimated."""

LatencyPrior = Callable[[Population], Float[Array, "pop columns"]]
"""Prior knowledge of latencies, jittable: one column or more, each increasing with the latency."""


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Estimates latencies in milliseconds: `estimate` inside jit, `exact` the same on the host.

    latency = max(weights . [1, prior], floor) * exp(residual), where `predictor` predicts the residual from `residual_model`
    (None: the residual is 0). `rows` is the number of networks that the model was fitted to; `errors` are those on measured
    networks that were held out, None without any.
    """

    inputs: Inputs
    predictor: Predictor
    prior: LatencyPrior | None
    weights: Float[ndarray, " columns"]
    floor: float
    residual_model: Any
    rows: int
    errors: Errors | None = None

    def estimate(self, archs: Population) -> Float[Array, " pop"]:
        """Milliseconds in float32, for use inside jit."""
        archs = jnp.asarray(archs)
        logarithms = jnp.log(self._scaled_prior(archs))
        if self.residual_model is not None:
            logarithms += self.predictor.predict(self.inputs, self.residual_model, archs)[0]
        return jnp.exp(logarithms)

    def _scaled_prior(self, archs: Population) -> Float[Array, " pop"]:
        """The prior with its offset and scales, in milliseconds; the offset alone without a prior."""
        weights = jnp.asarray(self.weights, jnp.float32)
        columns = jnp.zeros((len(archs), 0)) if self.prior is None else self.prior(archs)
        return jnp.maximum(weights[0] + (columns * weights[None, 1:]).sum(1), self.floor)

    def exact(self, archs: Population) -> Float[ndarray, " pop"]:
        """The same estimates as float64 on the host, for storing."""
        # Not jitted as a whole: each model would compile again, while a predictor's own function compiles once.
        return np.asarray(self.estimate(np.asarray(archs, np.int32)), np.float64)

    def maximum(self) -> float:
        """Upper end of the latency range: 1.1 times the largest estimate of the largest and some random architectures."""
        space = self.inputs.space
        archs = np.concatenate([space.largest()[None], np.asarray(space.sample(jax.random.key(0), MAXIMUM_SAMPLES))])
        return 1.1 * float(self.exact(archs).max())

    def as_prior(self, archs: Population) -> Float[Array, "pop 1"]:
        """This model's estimates as the prior of another device's model."""
        return self.estimate(archs)[:, None]


def fit_latency(
    predictor: Predictor,
    inputs: Inputs,
    archs: Population,
    milliseconds: Float[ndarray, " pop"],
    prior: LatencyPrior | None = None,
    held_out: tuple[Population, Float[ndarray, " pop"]] | None = None,
) -> LatencyModel:
    """Fits a latency model to measured networks; rows that are not finite and positive are left out.

    `held_out`: architectures and milliseconds on which `errors` are computed. Raises ConfigError for fewer than three
    measured networks.
    """
    archs, milliseconds = np.asarray(archs, np.int32), np.asarray(milliseconds, np.float64)
    valid = np.isfinite(milliseconds) & (milliseconds > 0)
    archs, milliseconds = archs[valid], milliseconds[valid]
    if len(archs) < 3:
        raise ConfigError(f"a latency model needs three measured networks or more, not {len(archs)}")
    weights = _offset_and_scales(prior, archs, milliseconds)
    model = LatencyModel(inputs, predictor, prior, weights, FLOOR_SHARE * float(milliseconds.min()), None, len(archs))
    residual = np.log(milliseconds / model.exact(archs)).astype(np.float32)
    residual_model = predictor.fit(inputs, archs, residual)
    squared_error = np.mean((np.asarray(residual_model.held_out) - residual) ** 2)
    if prior is None or squared_error < MAX_RESIDUAL_ERROR * np.mean(residual**2):
        model = replace(model, residual_model=residual_model)
    if held_out is None:
        return model
    return replace(model, errors=errors(held_out[1], model.exact(held_out[0])))


def _offset_and_scales(
    prior: LatencyPrior | None, archs: Population, milliseconds: Float[ndarray, " pop"]
) -> Float[ndarray, " columns"]:
    """Offset and one scale a column of the prior, by least squares of relative errors; without a prior the median.

    With fewer than ten networks only the first column is scaled: more columns would overfit.
    """
    if prior is None:
        return np.array([np.median(milliseconds)])
    columns = np.asarray(prior(archs), np.float64)
    used = columns if len(archs) >= 10 else columns[:, :1]
    matrix = np.concatenate([np.ones((len(archs), 1)), used], axis=1) / milliseconds[:, None]
    unit = np.linalg.norm(matrix, axis=0) + 1e-30
    weights = np.linalg.lstsq(matrix / unit, np.ones(len(archs)), rcond=1e-6)[0] / unit
    if weights[1] <= 0:  # The prior does not agree with the measurements at all.
        return np.append(np.median(milliseconds), np.zeros(columns.shape[1]))
    return np.append(weights, np.zeros(columns.shape[1] - used.shape[1]))
