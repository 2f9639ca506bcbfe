"""Gaussian process: a linear and a squared-exponential kernel, each family of features with scales of its own.

Few features (depth, kernel sizes, …) come in many copies, so that a scale a family is learnt from few rows where a scale a
feature is not. Hyperparameters maximise the posterior (marginal likelihood, broad priors) by a fixed number of Adam's steps,
so that a fit compiles once.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.inputs import Inputs, targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population

JITTER = 1e-4
"""Added to the noise's variance, in units of the values' variance: below it float32 decompositions fail."""


class Scales(NamedTuple):
    """Logarithms of the hyperparameters, for values of unit variance: per family, or one."""

    linear: Float[Array, " families"]
    length: Float[Array, " families"]
    smooth: Float[Array, ""]
    noise: Float[Array, ""]


class GaussianProcessModel(NamedTuple):
    """A fitted process; `features` are centred and scaled by family, rows that do not count are zero."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    mean: Float[Array, ""]
    unit: Float[Array, ""]
    features: Float[Array, "rows features"]
    counts: Float[Array, " rows"]
    scales: Scales
    cholesky: Float[Array, "rows rows"]
    weights: Float[Array, " rows"]


@dataclass(frozen=True)
class GaussianProcess:
    """Fits `steps` steps of Adam on at most `rows` rows (spread over the values), then conditions on all of them."""

    steps: int = 100
    rows: int = 256

    def __post_init__(self):
        for name in ("steps", "rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"predictor.{name} must be at least 1, not {getattr(self, name)}")

    @partial(jax.jit, static_argnums=(0, 1))
    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> GaussianProcessModel:
        """The model of the rows that count: mask True (None: all) and value not NaN."""
        with jax.default_matmul_precision("highest"):
            counts, rows, mean, unit, known = targets(values, mask)
            families = _membership(inputs)
            features = inputs.features(archs)
            centre = (features * counts[:, None]).sum(0) / rows
            features = (features - centre[None]) * counts[:, None]
            # A family varies by one unit in all: the priors then mean the same in every space.
            spread = jnp.sqrt(((features**2).sum(0) @ families) / rows)
            scale = families @ jnp.where(spread > 1e-6, spread, 1)
            features = features / scale[None]

            scales = self._scales(features, known, counts, families)
            cholesky = jnp.linalg.cholesky(_covariance(scales, features, counts, families))
            weights = cho_solve((cholesky, True), known)
            return GaussianProcessModel(centre, scale, mean, unit, features, counts, scales, cholesky, weights)

    @partial(jax.jit, static_argnums=(0, 1))
    def predict(
        self, inputs: SearchSpace | Inputs, model: GaussianProcessModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean and standard deviation of the value itself (its noise left out) of each architecture."""
        with jax.default_matmul_precision("highest"):
            families = _membership(inputs)
            features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
            across = _kernel(model.scales, features, model.features, families) * model.counts[None]
            mean = model.mean + model.unit * (across @ model.weights)
            left = solve_triangular(model.cholesky, across.T, lower=True)
            alone = (features**2) @ (families @ jnp.exp(model.scales.linear)) + jnp.exp(model.scales.smooth)
            return mean, model.unit * jnp.sqrt(jnp.maximum(alone - (left**2).sum(0), 1e-8))

    def _scales(
        self,
        features: Float[Array, "pop features"],
        values: Float[Array, " pop"],
        counts: Float[Array, " pop"],
        families: Float[Array, "features families"],
    ) -> Scales:
        if len(values) > self.rows:
            # Evenly over the values, from best to worst: rows that do not count come last.
            order = jnp.argsort(jnp.where(counts > 0, values, jnp.inf))
            places = jnp.arange(self.rows, dtype=jnp.float32) * jnp.maximum(counts.sum(), self.rows) / self.rows
            kept = order[places.astype(jnp.int32)]
            features, values, counts = features[kept], values[kept], counts[kept]
        number = families.shape[1]
        start = Scales(jnp.full(number, -2.0), jnp.full(number, 0.5), jnp.array(-0.5), jnp.array(-5.0))

        def loss(scales: Scales) -> Float[Array, ""]:
            cholesky = jnp.linalg.cholesky(_covariance(scales, features, counts, families))
            fit = values @ cho_solve((cholesky, True), values) / 2 + jnp.log(jnp.diag(cholesky)).sum()
            prior = jax.tree.map(lambda value, first: ((value - first) ** 2).sum() / 8, scales, start)
            return fit + sum(jax.tree.leaves(prior))

        adam = optax.adam(0.1)

        def step(carry, _):
            scales, state = carry
            updates, state = adam.update(jax.grad(loss)(scales), state)
            return (optax.apply_updates(scales, updates), state), None

        with jax.numpy_dtype_promotion("standard"):  # Optax needs it.
            return lax.scan(step, (start, adam.init(start)), length=self.steps)[0][0]


def _membership(inputs: SearchSpace | Inputs) -> Float[Array, "features families"]:
    """One column a family, 1 for its features."""
    families = np.array(inputs.families, np.int32)
    return jnp.asarray(families[:, None] == np.arange(families.max(initial=0) + 1), jnp.float32)


def _kernel(
    scales: Scales,
    one: Float[Array, "rows features"],
    other: Float[Array, "columns features"],
    families: Float[Array, "features families"],
) -> Float[Array, "rows columns"]:
    linear = families @ jnp.exp(scales.linear)
    narrow = families @ jnp.exp(-2 * scales.length)
    product = (one * linear[None]) @ other.T
    squares = ((one**2) @ narrow)[:, None] + ((other**2) @ narrow)[None] - 2 * (one * narrow[None]) @ other.T
    return product + jnp.exp(scales.smooth) * jnp.exp(-jnp.maximum(squares, 0) / 2)


def _covariance(
    scales: Scales,
    features: Float[Array, "rows features"],
    counts: Float[Array, " rows"],
    families: Float[Array, "features families"],
) -> Float[Array, "rows rows"]:
    """Of the measurements; the identity for rows that do not count."""
    both = counts[:, None] * counts[None]
    noise = jnp.where(counts > 0, jnp.exp(scales.noise) + JITTER, 1)
    return _kernel(scales, features, features, families) * both + jnp.diag(noise)
