"""Gaussian process: a linear and a squared-exponential kernel, each family of features with scales of its own.

Values are bent towards a normal distribution as much as the data ask for (warped processes: Snelson and others 2003): a
few networks that failed to learn (10 % accuracy) do not spoil the others, and additive values stay straight.

Few features (depth, kernel sizes, …) come in many copies, so that a scale a family is learnt from few rows where a scale a
feature is not. Hyperparameters maximise the posterior (marginal likelihood, broad priors) by a fixed number of Adam's steps,
so that a fit compiles once.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, Targets, by_family, held_out, membership, targets
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
    bend: Float[Array, ""]


class Bend(NamedTuple):
    """How values become normal: arcsinh(strength * (value - centre) / spread) / strength, then mean 0 and variance 1."""

    strength: Float[Array, ""]
    mean: Float[Array, ""]
    unit: Float[Array, ""]


class GaussianProcessModel(NamedTuple):
    """A fitted process; `features` are centred and scaled by family, rows that do not count are zero."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    middle: Float[Array, ""]
    spread: Float[Array, ""]
    """The values' median, and what would be the deviation of normal values with their quartiles."""
    bend: Bend
    features: Float[Array, "rows features"]
    counts: Float[Array, " rows"]
    scales: Scales
    cholesky: Float[Array, "rows rows"]
    weights: Float[Array, " rows"]
    held_out: Float[Array, " rows"]
    """Exact leave-one-out predictions with the hyperparameters of all rows; NaN for rows that do not count."""


@dataclass(frozen=True)
class GaussianProcess:
    """Fits `steps` steps of Adam on at most `rows` rows (spread over the values), then conditions on all of them."""

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
        """The model of the rows that count: mask True (None: all) and value not NaN."""
        with jax.default_matmul_precision("highest"):
            known = targets(values, mask)
            families = membership(inputs)
            centre, scale, features = by_family(inputs.features(archs), known, families)
            start = Scales(
                *(jnp.full(families.shape[1], first) for first in (-2.0, 0.5)), *map(jnp.array, (-0.5, -5.0, -1.0))
            )
            middle, spread, values = _by_quartiles(known)
            scales = self._scales(start, features, values, known.counts, families)
            bend, bent, _ = _bent(scales.bend, values, known.counts)
            cholesky = jnp.linalg.cholesky(_covariance(scales, features, known.counts, families))
            inverse = _inverse(cholesky)
            weights = inverse @ bent
            # Each row from all others, in closed form (Rasmussen and Williams 2006, 5.12).
            others = middle + spread * _straight(bend, bent - weights / jnp.diag(inverse))[0]
            return GaussianProcessModel(
                centre=centre,
                scale=scale,
                middle=middle,
                spread=spread,
                bend=bend,
                features=features,
                counts=known.counts,
                scales=scales,
                cholesky=cholesky,
                weights=weights,
                held_out=held_out(known, others),
            )

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: GaussianProcessModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Median and standard deviation (to first order, noise left out) of the value itself of each architecture."""
        with jax.default_matmul_precision("highest"):
            families = membership(inputs)
            features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
            across = _kernel(model.scales, features, model.features, families) * model.counts[None]
            mean, slope = _straight(model.bend, across @ model.weights)
            left = solve_triangular(model.cholesky, across.T, lower=True)
            alone = (features**2) @ (families @ jnp.exp(model.scales.linear)) + jnp.exp(model.scales.smooth)
            deviation = slope * jnp.sqrt(jnp.maximum(alone - (left**2).sum(0), 1e-8))
            return model.middle + model.spread * mean, model.spread * deviation

    def _scales(
        self,
        start: Scales,
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
        # Products and squared distances family by family, once: a step then costs nothing per feature.
        products = jnp.einsum("if,fk,jf->kij", features, families, features, optimize="optimal")
        norms = jnp.einsum("kii->ki", products)
        distances = jnp.maximum(norms[:, :, None] + norms[:, None, :] - 2 * products, 0)
        pairs = products.shape[1:]
        products, distances = (each.reshape(len(each), -1) for each in (products, distances))

        def covariance(scales: Scales) -> Float[Array, "rows rows"]:
            linear = jnp.exp(scales.linear) @ products
            squares = jnp.exp(-2 * scales.length) @ distances
            return _measured(scales, (linear + jnp.exp(scales.smooth - squares / 2)).reshape(pairs), counts)

        def slope(scales: Scales) -> Scales:
            """Of the negative logarithm of the posterior; the decomposition itself is not differentiated."""
            inverse = _inverse(jnp.linalg.cholesky(covariance(scales)))
            weights = (inverse * _bent(scales.bend, values, counts)[1][None]).sum(1)
            by_entry = (inverse - weights[:, None] * weights[None]) / 2

            def linearised(scales: Scales) -> Float[Array, ""]:
                _, bent, volume = _bent(scales.bend, values, counts)
                prior = jax.tree.map(lambda value, first: ((value - first) ** 2).sum() / 8, scales, start)
                return (by_entry * covariance(scales)).sum() + (weights * bent).sum() - volume + sum(jax.tree.leaves(prior))

            return jax.grad(linearised)(scales)

        # One vector: half the program to compile.
        adam, (flat, scales_of) = optax.adam(0.2), ravel_pytree(start)

        def step(carry, _):
            flat, state = carry
            updates, state = adam.update(ravel_pytree(slope(scales_of(flat)))[0], state)
            return (optax.apply_updates(flat, updates), state), None

        with jax.numpy_dtype_promotion("standard"):  # Optax needs it.
            return scales_of(lax.scan(step, (flat, adam.init(flat)), length=self.steps)[0][0])


def _by_quartiles(known: Targets) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " pop"]]:
    """Middle, spread, and the values measured by them: outliers move neither. Rows that do not count are 0."""
    ranked = jnp.sort(jnp.where(known.counts > 0, known.values, jnp.inf))
    # Between the neighbours: the mirror image of the values has the mirror image of the middle.
    places = (known.rows - 1) * jnp.array([0.25, 0.5, 0.75])
    low, middle, high = (ranked[jnp.floor(places).astype(jnp.int32)] + ranked[jnp.ceil(places).astype(jnp.int32)]) / 2
    middle = jnp.where(jnp.isfinite(middle), middle, 0)
    spread = jnp.where(high - low > 1e-3, (high - low) / 1.35, 1)  # Half of all values alike: the deviation it is.
    values = known.counts * (known.values - middle) / spread
    return known.mean + known.unit * middle, known.unit * spread, values


def _bent(
    logarithm: Float[Array, ""], values: Float[Array, " pop"], counts: Float[Array, " pop"]
) -> tuple[Bend, Float[Array, " pop"], Float[Array, ""]]:
    """The bend of that strength, the bent values (0 where a row does not count), the logarithm of their slopes' product."""
    rows = jnp.maximum(counts.sum(), 1)
    strength = jnp.exp(logarithm)
    inner = strength * values
    outer = jnp.arcsinh(inner) / strength
    mean = outer.sum() / rows
    squares = (((outer - mean) * counts) ** 2).sum() / rows
    unit = jnp.sqrt(jnp.where(squares > 0, squares, 1))
    volume = -jnp.log1p(inner**2).sum() / 2 - rows * jnp.log(unit)
    return Bend(strength, mean, unit), (outer - mean) * counts / unit, volume


def _straight(bend: Bend, bent: Float[Array, " pop"]) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
    """The values of bent ones, and their slope."""
    inner = jnp.clip(bend.strength * (bend.mean + bend.unit * bent), -20, 20)
    return jnp.sinh(inner) / bend.strength, bend.unit * jnp.cosh(inner)


def _inverse(cholesky: Float[Array, "rows rows"]) -> Float[Array, "rows rows"]:
    left = solve_triangular(cholesky, jnp.eye(len(cholesky)), lower=True)
    return left.T @ left


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
    return _measured(scales, _kernel(scales, features, features, families), counts)


def _measured(scales: Scales, kernel: Float[Array, "rows rows"], counts: Float[Array, " rows"]) -> Float[Array, "rows rows"]:
    """The covariance of measurements; the identity for rows that do not count."""
    noise = jnp.where(counts > 0, jnp.exp(scales.noise) + JITTER, 1)
    return kernel * counts[:, None] * counts[None] + jnp.diag(noise)
