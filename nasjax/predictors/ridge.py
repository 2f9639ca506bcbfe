"""Ridge regression on a space's features, its penalty chosen by the exact leave-one-out error."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, held_out, targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class RidgeModel(NamedTuple):
    """A fitted ridge: prediction = mean + weights . z with z = (features - centre) / scale; in units of the values."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    mean: Float[Array, ""]
    weights: Float[Array, " features"]
    root: Float[Array, "features features"]
    """A square root of (Z'Z + penalty)^-1: the variance of the weights in units of the noise's."""
    noise: Float[Array, ""]
    """The standard deviation of the noise."""
    rows: Float[Array, ""]
    penalty: Float[Array, ""]
    errors: Float[Array, " penalties"]
    """Leave-one-out mean squared error, penalty by penalty."""
    held_out: Float[Array, " pop"]
    """Exact leave-one-out predictions; NaN for rows that do not count."""


@dataclass(frozen=True)
class Ridge:
    """Bayesian ridge regression; `penalties` are weighed against Z'Z of centred features with unit variance.

    Below 0.1 float32 blurs the leave-one-out errors of fewer rows than features, and predictions hardly change.
    """

    penalties: tuple[float, ...] = tuple(10 ** (power / 2) for power in range(-2, 9))

    def __post_init__(self):
        if not self.penalties or not all(penalty > 0 for penalty in self.penalties):
            raise ConfigError(f"predictor.penalties must be numbers above 0, not {list(self.penalties)}")

    @partial(jax.jit, static_argnums=0)
    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> RidgeModel:
        """The model of the rows that count: mask True (None: all) and value not NaN; of no rows at all, zero."""
        with jax.default_matmul_precision("highest"):
            return self._fit(inputs.features(archs), values, mask)

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: RidgeModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean and standard deviation of a new measurement (its noise included) of each architecture."""
        with jax.default_matmul_precision("highest"):
            features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
            spread = ((features @ model.root) ** 2).sum(axis=1)
            return model.mean + features @ model.weights, model.noise * jnp.sqrt(1 + 1 / model.rows + spread)

    def _fit(
        self, features: Float[Array, "pop features"], values: Float[Array | ndarray, " pop"], mask: Mask | None
    ) -> RidgeModel:
        weight, rows, mean, unit, known = targeted = targets(values, mask)
        counts = weight > 0

        centre = (features * weight[:, None]).sum(axis=0) / rows
        inputs = (features - centre[None]) * weight[:, None]
        scale = jnp.sqrt((inputs**2).sum(axis=0) / rows)
        scale = jnp.where(scale > 1e-6, scale, 1)  # a feature that never varied has no weight, whatever its scale
        inputs = inputs / scale[None]

        # With at least as many rows as features the thin decomposition spans every direction, those without data included.
        wide = inputs.shape[1]
        left, singular, right = jnp.linalg.svd(jnp.concatenate([inputs, jnp.zeros((wide, wide))]), full_matrices=False)
        left = left[: len(inputs)]
        along = left.T @ known

        def remain(penalty: Float[Array, ""]) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
            """Residuals, and those of leaving each row out: a residual over one minus its leverage."""
            shrunk = singular**2 / (singular**2 + penalty)
            residuals = known - left @ (shrunk * along)
            leverage = 1 / rows + left**2 @ shrunk
            return residuals, jnp.where(counts, residuals / jnp.maximum(1 - leverage, 1e-6), 0)

        # From the largest down: of equally good penalties (one row, constant values) the safest is taken.
        penalties = jnp.array(sorted(self.penalties, reverse=True), jnp.float32)
        left_out = jax.vmap(remain)(penalties)[1]
        errors = (left_out**2).sum(1) / rows
        best = jnp.argmin(errors)
        penalty = penalties[best]
        weights = right.T @ (singular * along / (singular**2 + penalty))
        # The noise that makes the values most probable, weights having the prior variance noise^2 / penalty.
        squares = jnp.where(counts, remain(penalty)[0], 0) @ known
        noise = jnp.sqrt(jnp.maximum(squares, 0) / jnp.maximum(rows - 1, 1))
        return RidgeModel(
            centre=centre,
            scale=scale,
            mean=mean,
            weights=weights * unit,
            root=right.T / jnp.sqrt(singular**2 + penalty)[None],
            noise=noise * unit,
            rows=rows,
            penalty=penalty,
            errors=errors[::-1] * unit**2,
            held_out=held_out(targeted, mean + unit * (known - left_out[best])),
        )
