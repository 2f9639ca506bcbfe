"""Warped Gaussian process: a linear and a squared-exponential (RBF) kernel with one scale per group of features.

Values are warped towards a normal distribution by an arcsinh whose strength and centre are fitted (warped Gaussian process,
Snelson et al. 2003). A few networks that failed to learn (10 % accuracy) then do not distort the predictions of others, and
skewed values (accuracies that crowd near the best, latencies with a long tail) are spread out where they crowd.

Search spaces repeat few kinds of genes (depth, kernel size, …) many times, so one scale per group can be learnt from few
rows where one per feature cannot. Hyperparameters maximise the posterior (marginal likelihood and broad priors) with a fixed
number of Adam steps, so that a fit compiles once.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, Targets, group_membership, mask_held_out, scale_by_group, standardise_targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population

JITTER = 1e-4
"""Least noise variance, in units of the values' variance: with less, Cholesky decompositions in float32 fail."""


class LogHyperparameters(NamedTuple):
    """Natural logarithms of the hyperparameters, for values of unit spread."""

    linear: Float[Array, " groups"]
    """Variance of the linear kernel."""
    length: Float[Array, " groups"]
    """Length scale of the RBF kernel."""
    rbf: Float[Array, ""]
    """Variance of the RBF kernel."""
    noise: Float[Array, ""]
    """Variance of the noise."""
    warp: Float[Array, ""]
    """Strength of the warping of the values."""
    centre: Float[Array, ""]
    """Where the warping stretches most: itself, no logarithm."""


class Warp(NamedTuple):
    """Parameters of the warping w = (arcsinh(strength * (v - centre)) / strength - mean) / unit of a scaled value v."""

    strength: Float[Array, ""]
    centre: Float[Array, ""]
    mean: Float[Array, ""]
    unit: Float[Array, ""]


class GaussianProcessModel(NamedTuple):
    """A fitted Gaussian process; `features` are standardised by group, and 0 in invalid rows."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    median: Float[Array, ""]
    spread: Float[Array, ""]
    """Median of the values, and the standard deviation of a normal distribution with their interquartile range."""
    warp: Warp
    features: Float[Array, "rows features"]
    counts: Float[Array, " rows"]
    hyper: LogHyperparameters
    cholesky: Float[Array, "rows rows"]
    weights: Float[Array, " rows"]
    held_out: Float[Array, " rows"]
    """Exact leave-one-out predictions with the hyperparameters of all rows; NaN for invalid rows."""


@dataclass(frozen=True)
class GaussianProcess:
    """Gaussian process regression.

    Hyperparameters are fitted by `steps` steps of Adam on at most `rows` rows, evenly spread over the ranked values; the
    process is then conditioned on all rows. Raises ConfigError for invalid settings.
    """

    max_rows: ClassVar[float] = 512

    steps: int = 50
    rows: int = 128

    def __post_init__(self):
        for name in ("steps", "rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"predictor.{name} must be at least 1, not {getattr(self, name)}")

    @partial(jax.jit, static_argnums=0)
    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> GaussianProcessModel:
        """Fits the valid rows: mask True (None: all) and value not NaN."""
        with jax.default_matmul_precision("highest"):
            known = standardise_targets(values, mask)
            groups = group_membership(inputs)
            centre, scale, features = scale_by_group(inputs.features(archs), known, groups)
            start = LogHyperparameters(
                *(jnp.full(groups.shape[1], first) for first in (-2.0, 0.5)), *map(jnp.array, (-0.5, -5.0, -1.0, 0.0))
            )
            median, spread, values = _scale_by_quartiles(known)
            hyper = self._fit_hyperparameters(start, features, values, known.counts, groups)
            warp, warped, _ = _warp_values(hyper, values, known.counts)
            cholesky = jnp.linalg.cholesky(_noisy_covariance(hyper, features, known.counts, groups))
            inverse = _inverse(cholesky)
            weights = inverse @ warped
            # Leave-one-out predictions in closed form (Rasmussen and Williams 2006, equation 5.12).
            others = median + spread * _unwarp(warp, warped - weights / jnp.diag(inverse))[0]
            return GaussianProcessModel(
                centre=centre,
                scale=scale,
                median=median,
                spread=spread,
                warp=warp,
                features=features,
                counts=known.counts,
                hyper=hyper,
                cholesky=cholesky,
                weights=weights,
                held_out=mask_held_out(known, others),
            )

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: GaussianProcessModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Median and standard deviation of each architecture's value, without noise, in the unit of the fitted values.

        The deviation is transformed back from the warped scale to first order.
        """
        with jax.default_matmul_precision("highest"):
            groups = group_membership(inputs)
            features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
            linear, weights = groups @ jnp.exp(model.hyper.linear), model.weights * model.counts
            rbf = _rbf_kernel(model.hyper, features, model.features, groups)
            # The linear kernel times the weights, without its matrix: half the time of what only wants the means.
            mean, slope = _unwarp(model.warp, features @ (linear * (weights @ model.features)) + rbf @ weights)
            across = ((features * linear[None]) @ model.features.T + rbf) * model.counts[None]
            left = solve_triangular(model.cholesky, across.T, lower=True)
            alone = (features**2) @ linear + jnp.exp(model.hyper.rbf)
            deviation = slope * jnp.sqrt(jnp.maximum(alone - (left**2).sum(0), 1e-8))
            return model.median + model.spread * mean, model.spread * deviation

    def _fit_hyperparameters(
        self,
        start: LogHyperparameters,
        features: Float[Array, "pop features"],
        values: Float[Array, " pop"],
        counts: Float[Array, " pop"],
        groups: Float[Array, "features groups"],
    ) -> LogHyperparameters:
        """The hyperparameters of maximal posterior, found by Adam from `start`, the mode of their priors."""
        if len(values) > self.rows:
            # Rows evenly spread over the ranked values; invalid rows come last.
            order = jnp.argsort(jnp.where(counts > 0, values, jnp.inf))
            places = jnp.arange(self.rows, dtype=jnp.float32) * jnp.maximum(counts.sum(), self.rows) / self.rows
            kept = order[places.astype(jnp.int32)]
            features, values, counts = features[kept], values[kept], counts[kept]
        # Products and squared distances per group are computed once: the cost of a step is independent of the features.
        products = jnp.einsum("if,fk,jf->kij", features, groups, features, optimize="optimal")
        norms = jnp.einsum("kii->ki", products)
        distances = jnp.maximum(norms[:, :, None] + norms[:, None, :] - 2 * products, 0)
        pairs = products.shape[1:]
        products, distances = (each.reshape(len(each), -1) for each in (products, distances))

        def covariance(hyper: LogHyperparameters) -> Float[Array, "rows rows"]:
            linear = jnp.exp(hyper.linear) @ products
            squares = jnp.exp(-2 * hyper.length) @ distances
            return _add_noise(hyper, (linear + jnp.exp(hyper.rbf - squares / 2)).reshape(pairs), counts)

        def slope(hyper: LogHyperparameters) -> LogHyperparameters:
            """Gradient of the negative log posterior, in closed form so that the decomposition is not differentiated."""
            inverse = _inverse(jnp.linalg.cholesky(covariance(hyper)))
            weights = (inverse * _warp_values(hyper, values, counts)[1][None]).sum(1)
            by_entry = (inverse - weights[:, None] * weights[None]) / 2

            def linearised(hyper: LogHyperparameters) -> Float[Array, ""]:
                _, warped, volume = _warp_values(hyper, values, counts)
                prior = jax.tree.map(lambda value, first: ((value - first) ** 2).sum() / 8, hyper, start)
                return (by_entry * covariance(hyper)).sum() + (weights * warped).sum() - volume + sum(jax.tree.leaves(prior))

            return jax.grad(linearised)(hyper)

        # One flat vector halves the program to be compiled.
        adam, (flat, unravel) = optax.adam(0.2), ravel_pytree(start)

        def step(carry, _):
            flat, state = carry
            updates, state = adam.update(ravel_pytree(slope(unravel(flat)))[0], state)
            return (optax.apply_updates(flat, updates), state), None

        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            return unravel(lax.scan(step, (flat, adam.init(flat)), length=self.steps)[0][0])


def _scale_by_quartiles(known: Targets) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " pop"]]:
    """Median, spread, and the values scaled by them (0 in invalid rows): robust to outliers."""
    ranked = jnp.sort(jnp.where(known.counts > 0, known.values, jnp.inf))
    # Quantiles between two rows are their mean, so that negated values have the negated median.
    places = (known.rows - 1) * jnp.array([0.25, 0.5, 0.75])
    low, median, high = (ranked[jnp.floor(places).astype(jnp.int32)] + ranked[jnp.ceil(places).astype(jnp.int32)]) / 2
    median = jnp.where(jnp.isfinite(median), median, 0)
    spread = jnp.where(high - low > 1e-3, (high - low) / 1.35, 1)  # if half of the values are equal: the standard deviation
    values = known.counts * (known.values - median) / spread
    return known.mean + known.unit * median, known.unit * spread, values


def _warp_values(
    hyper: LogHyperparameters, values: Float[Array, " pop"], counts: Float[Array, " pop"]
) -> tuple[Warp, Float[Array, " pop"], Float[Array, ""]]:
    """Warp parameters, warped values (0 in invalid rows), and the log-determinant of the warping's Jacobian."""
    rows = jnp.maximum(counts.sum(), 1)
    strength = jnp.exp(hyper.warp)
    inner = strength * counts * (values - hyper.centre)
    outer = jnp.arcsinh(inner) / strength
    mean = outer.sum() / rows
    squares = (((outer - mean) * counts) ** 2).sum() / rows
    unit = jnp.sqrt(jnp.where(squares > 0, squares, 1))
    volume = -jnp.log1p(inner**2).sum() / 2 - rows * jnp.log(unit)
    return Warp(strength, hyper.centre, mean, unit), (outer - mean) * counts / unit, volume


def _unwarp(warp: Warp, warped: Float[Array, " pop"]) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
    """Inverse warping: the scaled values, and their derivatives by the warped ones."""
    inner = jnp.clip(warp.strength * (warp.mean + warp.unit * warped), -20, 20)
    return jnp.sinh(inner) / warp.strength + warp.centre, warp.unit * jnp.cosh(inner)


def _inverse(cholesky: Float[Array, "rows rows"]) -> Float[Array, "rows rows"]:
    """Inverse of a matrix from its Cholesky factor."""
    left = solve_triangular(cholesky, jnp.eye(len(cholesky)), lower=True)
    return left.T @ left


def _rbf_kernel(
    hyper: LogHyperparameters,
    one: Float[Array, "rows features"],
    other: Float[Array, "columns features"],
    groups: Float[Array, "features groups"],
) -> Float[Array, "rows columns"]:
    """Prior covariance of the values of two sets of architectures, the part that falls with their distance."""
    narrow = groups @ jnp.exp(-2 * hyper.length)
    squares = ((one**2) @ narrow)[:, None] + ((other**2) @ narrow)[None] - 2 * (one * narrow[None]) @ other.T
    return jnp.exp(hyper.rbf) * jnp.exp(-jnp.maximum(squares, 0) / 2)


def _noisy_covariance(
    hyper: LogHyperparameters,
    features: Float[Array, "rows features"],
    counts: Float[Array, " rows"],
    groups: Float[Array, "features groups"],
) -> Float[Array, "rows rows"]:
    """Covariance of noisy measurements of `features`; the identity for invalid rows."""
    linear = groups @ jnp.exp(hyper.linear)
    kernel = (features * linear[None]) @ features.T + _rbf_kernel(hyper, features, features, groups)
    return _add_noise(hyper, kernel, counts)


def _add_noise(
    hyper: LogHyperparameters, kernel: Float[Array, "rows rows"], counts: Float[Array, " rows"]
) -> Float[Array, "rows rows"]:
    """Adds noise to a kernel matrix; the identity for invalid rows."""
    noise = jnp.where(counts > 0, jnp.exp(hyper.noise) + JITTER, 1)
    return kernel * counts[:, None] * counts[None] + jnp.diag(noise)
