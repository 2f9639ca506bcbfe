"""Support vector regression with a squared-exponential kernel: fitted by scikit-learn on the host, predicted inside jit."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, Targets, group_membership, mask_held_out, scale_by_group, standardise_targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population

if TYPE_CHECKING:
    from sklearn.svm import SVR as SupportVectorMachine


class SVRModel(NamedTuple):
    """A fitted support vector machine: mean + unit * (intercept + weights . exp(-gamma * squared distances))."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    features: Float[Array, "rows features"]
    weights: Float[Array, " rows"]
    """Dual coefficients; 0 for rows that are not support vectors."""
    intercept: Float[Array, ""]
    gamma: Float[Array, ""]
    penalty: Float[Array, ""]
    mean: Float[Array, ""]
    unit: Float[Array, ""]
    deviation: Float[Array, ""]
    held_out: Float[Array, " rows"]
    """Cross-validated predictions; NaN for invalid rows."""


@dataclass(frozen=True)
class SVR:
    """Epsilon-SVR on values of unit variance; `penalties` (C) and `gammas` have the least cross-validated squared error.

    `gammas` are divided by the number of feature groups, since the features of a group together have unit variance. `folds`
    is the number of cross-validation folds, `epsilon` the error that costs nothing. Raises ConfigError for invalid settings.
    """

    max_rows: ClassVar[float] = 1_000

    penalties: tuple[float, ...] = (10.0, 100.0)
    gammas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    epsilon: float = 0.01
    folds: int = 5

    def __post_init__(self):
        for name in ("penalties", "gammas"):
            if not getattr(self, name) or not all(number > 0 for number in getattr(self, name)):
                raise ConfigError(f"predictor.{name} must be numbers above 0, not {list(getattr(self, name))}")
        if not self.epsilon >= 0:
            raise ConfigError(f"predictor.epsilon must be at least 0, not {self.epsilon}")
        if self.folds < 2:
            raise ConfigError(f"predictor.folds must be at least 2, not {self.folds}")

    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> SVRModel:
        """Fits the valid rows: mask True (None: all) and value not NaN. Runs on the host, not inside jit."""
        known, centre, scale, features = _standardise(inputs, archs, values, mask)
        rows = np.flatnonzero(np.asarray(known.counts))
        x, y = np.asarray(features, np.float64)[rows], np.asarray(known.values, np.float64)[rows]
        left_out, weights = np.zeros(len(known.values), np.float32), np.zeros(len(known.values), np.float32)
        intercept, gamma, penalty = 0.0, self.gammas[0], self.penalties[0]
        if len(rows) > 1 and np.ptp(y) > 0:
            squares = _squared_distances(x)
            groups = max(int(group_membership(inputs).shape[1]), 1)
            candidates = {
                (gamma / groups, penalty): self._cross_validated(np.exp(-gamma / groups * squares), y, penalty)
                for gamma, penalty in product(self.gammas, self.penalties)
            }
            gamma, penalty = min(candidates, key=lambda settings: float(((candidates[settings] - y) ** 2).sum()))
            left_out[rows] = candidates[gamma, penalty]
            machine = self._new_machine(penalty).fit(np.exp(-gamma * squares), y)
            weights[rows[machine.support_]] = machine.dual_coef_[0]
            intercept = float(machine.intercept_[0])
        rmse = np.sqrt(np.mean((left_out[rows] - y) ** 2)) if len(rows) else 1.0
        number = partial(jnp.asarray, dtype=jnp.float32)
        return SVRModel(
            centre=centre,
            scale=scale,
            features=features,
            weights=number(weights),
            intercept=number(intercept),
            gamma=number(gamma),
            penalty=number(penalty),
            mean=known.mean,
            unit=known.unit,
            deviation=known.unit * number(rmse),
            held_out=mask_held_out(known, known.mean + known.unit * number(left_out)),
        )

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: SVRModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean, and as standard deviation the root mean squared error of cross-validation, equal for all architectures."""
        with jax.default_matmul_precision("highest"):
            one, other = (inputs.features(archs) - model.centre[None]) / model.scale[None], model.features
            squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
            kernel = jnp.exp(-model.gamma * jnp.maximum(squares, 0))
            mean = model.mean + model.unit * (model.intercept + kernel @ model.weights)
            return mean, jnp.broadcast_to(jnp.maximum(model.deviation, 1e-6), mean.shape)

    def _cross_validated(
        self, kernel: Float[ndarray, "rows rows"], values: Float[ndarray, " rows"], penalty: float
    ) -> Float[ndarray, " rows"]:
        """Predictions of each row by a machine fitted to the other folds."""
        from sklearn.model_selection import KFold  # Takes a second.

        predictions = np.zeros(len(values))
        for rest, fold in KFold(min(self.folds, len(values)), shuffle=True, random_state=0).split(kernel):
            machine = self._new_machine(penalty).fit(kernel[np.ix_(rest, rest)], values[rest])
            predictions[fold] = machine.predict(kernel[np.ix_(fold, rest)])
        return predictions

    def _new_machine(self, penalty: float) -> "SupportVectorMachine":
        from sklearn.svm import SVR as SupportVectorMachine  # Takes a second.

        # Without the limit, values that no smooth function fits take minutes.
        return SupportVectorMachine(kernel="precomputed", C=penalty, epsilon=self.epsilon, tol=1e-2, max_iter=20_000)


@jax.jit
def _standardise(
    inputs: SearchSpace | Inputs, archs: Population, values: Float[Array | ndarray, " pop"], mask: Mask | None
) -> tuple[Targets, Float[Array, " features"], Float[Array, " features"], Float[Array, "pop features"]]:
    """Standardised targets, and centre, scale and values of the features."""
    known = standardise_targets(values, mask)
    return known, *scale_by_group(inputs.features(archs), known, group_membership(inputs))


def _squared_distances(features: Float[ndarray, "rows features"]) -> Float[ndarray, "rows rows"]:
    """Squared Euclidean distances between all pairs of rows."""
    norms = (features**2).sum(1)
    return np.maximum(norms[:, None] + norms[None] - 2 * features @ features.T, 0)
