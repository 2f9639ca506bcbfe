"""Ridge regression on the features of a search space; the penalty is chosen by the exact leave-one-out error."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, mask_held_out, standardise_targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class RidgeModel(NamedTuple):
    """A fitted ridge regression, in the unit of the values: mean + weights . z with z = (features - centre) / scale."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    mean: Float[Array, ""]
    weights: Float[Array, " features"]
    root: Float[Array, "features features"]
    """A square root of (Z'Z + penalty)^-1, the covariance of the weights in units of the noise variance."""
    noise: Float[Array, ""]
    """Standard deviation of the noise."""
    rows: Float[Array, ""]
    penalty: Float[Array, ""]
    errors: Float[Array, " penalties"]
    """Leave-one-out mean squared error for each penalty."""
    held_out: Float[Array, " pop"]
    """Exact leave-one-out predictions; NaN for invalid rows."""


@dataclass(frozen=True)
class Ridge:
    """Bayesian ridge regression; `penalties` are candidates added to the diagonal of Z'Z, Z having columns of unit variance.

    Penalties below 0.1 make leave-one-out errors inaccurate in float32 if there are fewer rows than features, and hardly
    change predictions. Raises ConfigError for penalties that are not positive.
    """

    max_rows: ClassVar[float] = math.inf

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
        """Fits the valid rows: mask True (None: all) and value not NaN. Without valid rows the model predicts 0."""
        with jax.default_matmul_precision("highest"):
            return self._fit(inputs.features(archs), values, mask)

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: RidgeModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean and standard deviation of a new, noisy measurement of each architecture."""
        with jax.default_matmul_precision("highest"):
            features = (inputs.features(archs) - model.centre[None]) / model.scale[None]
            spread = ((features @ model.root) ** 2).sum(axis=1)
            return model.mean + features @ model.weights, model.noise * jnp.sqrt(1 + 1 / model.rows + spread)

    def _fit(
        self, features: Float[Array, "pop features"], values: Float[Array | ndarray, " pop"], mask: Mask | None
    ) -> RidgeModel:
        """Fits `features` by a singular value decomposition, which gives the errors of all penalties."""
        targets = standardise_targets(values, mask)
        weight, rows, mean, unit, known = targets
        counts = weight > 0

        centre = (features * weight[:, None]).sum(axis=0) / rows
        inputs = (features - centre[None]) * weight[:, None]
        scale = jnp.sqrt((inputs**2).sum(axis=0) / rows)
        scale = jnp.where(scale > 1e-6, scale, 1)  # constant features get weight 0 whatever their scale
        inputs = inputs / scale[None]

        # With as many zero rows added as there are features, the thin decomposition spans all directions of the weights.
        wide = inputs.shape[1]
        left, singular, right = jnp.linalg.svd(jnp.concatenate([inputs, jnp.zeros((wide, wide))]), full_matrices=False)
        left = left[: len(inputs)]
        along = left.T @ known

        def residuals_and_left_out(penalty: Float[Array, ""]) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
            """Residuals, and leave-one-out residuals: each residual divided by one minus its leverage."""
            shrunk = singular**2 / (singular**2 + penalty)
            residuals = known - left @ (shrunk * along)
            leverage = 1 / rows + left**2 @ shrunk
            return residuals, jnp.where(counts, residuals / jnp.maximum(1 - leverage, 1e-6), 0)

        # In descending order: of equally good penalties (one row, constant values) the largest is chosen.
        penalties = jnp.array(sorted(self.penalties, reverse=True), jnp.float32)
        left_out = jax.vmap(residuals_and_left_out)(penalties)[1]
        errors = (left_out**2).sum(1) / rows
        best = jnp.argmin(errors)
        penalty = penalties[best]
        weights = right.T @ (singular * along / (singular**2 + penalty))
        # Maximum-likelihood noise if the weights have the prior variance noise^2 / penalty.
        squares = jnp.where(counts, residuals_and_left_out(penalty)[0], 0) @ known
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
            held_out=mask_held_out(targets, mean + unit * (known - left_out[best])),
        )
