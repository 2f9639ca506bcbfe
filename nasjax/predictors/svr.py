"""Support vector regression with a squared-exponential kernel: fitted by scikit-learn on the host, predicted inside jit."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray
from sklearn.model_selection import KFold
from sklearn.svm import SVR as Machine

from nasjax.errors import ConfigError
from nasjax.predictors.inputs import Inputs, by_family, held_out, membership, targets
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class SVRModel(NamedTuple):
    """A fitted machine: prediction = mean + unit * (intercept + weights . k) with k = exp(-gamma * squared distances)."""

    centre: Float[Array, " features"]
    scale: Float[Array, " features"]
    features: Float[Array, "rows features"]
    weights: Float[Array, " rows"]
    """0 for rows that are no support vectors."""
    intercept: Float[Array, ""]
    gamma: Float[Array, ""]
    penalty: Float[Array, ""]
    mean: Float[Array, ""]
    unit: Float[Array, ""]
    deviation: Float[Array, ""]
    held_out: Float[Array, " rows"]
    """Predictions by cross-validation; NaN for rows that do not count."""


@dataclass(frozen=True)
class SVR:
    """Epsilon-SVR on values of unit variance; `penalties` (C) and `gammas` by the least cross-validated squared error.

    A family of features varies by one unit in all; `gammas` are divided by the number of families.
    """

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
        """The model of the rows that count: mask True (None: all) and value not NaN. Runs on the host, not inside jit."""
        known, centre, scale, features = _prepared(inputs, archs, values, mask)
        rows = np.flatnonzero(np.asarray(known.counts))
        x, y = np.asarray(features, np.float64)[rows], np.asarray(known.values, np.float64)[rows]
        left_out, weights = np.zeros(len(known.values), np.float32), np.zeros(len(known.values), np.float32)
        intercept, gamma, penalty = 0.0, self.gammas[0], self.penalties[0]
        if len(rows) > 1 and np.ptp(y) > 0:
            squares = _squares(x)
            families = max(int(membership(inputs).shape[1]), 1)
            tried = {
                (gamma / families, penalty): self._cross_validated(np.exp(-gamma / families * squares), y, penalty)
                for gamma, penalty in product(self.gammas, self.penalties)
            }
            gamma, penalty = min(tried, key=lambda settings: float(((tried[settings] - y) ** 2).sum()))
            left_out[rows] = tried[gamma, penalty]
            machine = self._machine(penalty).fit(np.exp(-gamma * squares), y)
            weights[rows[machine.support_]] = machine.dual_coef_[0]
            intercept = float(machine.intercept_[0])
        missed = np.sqrt(np.mean((left_out[rows] - y) ** 2)) if len(rows) else 1.0
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
            deviation=known.unit * number(missed),
            held_out=held_out(known, known.mean + known.unit * number(left_out)),
        )

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: SVRModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean, and the root mean squared error of cross-validation, the same for each architecture."""
        with jax.default_matmul_precision("highest"):
            one, other = (inputs.features(archs) - model.centre[None]) / model.scale[None], model.features
            squares = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
            kernel = jnp.exp(-model.gamma * jnp.maximum(squares, 0))
            mean = model.mean + model.unit * (model.intercept + kernel @ model.weights)
            return mean, jnp.broadcast_to(jnp.maximum(model.deviation, 1e-6), mean.shape)

    def _cross_validated(
        self, kernel: Float[ndarray, "rows rows"], values: Float[ndarray, " rows"], penalty: float
    ) -> Float[ndarray, " rows"]:
        found = np.zeros(len(values))
        for rest, fold in KFold(min(self.folds, len(values)), shuffle=True, random_state=0).split(kernel):
            machine = self._machine(penalty).fit(kernel[np.ix_(rest, rest)], values[rest])
            found[fold] = machine.predict(kernel[np.ix_(fold, rest)])
        return found

    def _machine(self, penalty: float) -> Machine:
        # The limit ends what would else go on for minutes: values that no smooth function fits.
        return Machine(kernel="precomputed", C=penalty, epsilon=self.epsilon, tol=1e-2, max_iter=20_000)


@jax.jit
def _prepared(inputs, archs, values, mask):
    known = targets(values, mask)
    return known, *by_family(inputs.features(archs), known, membership(inputs))


def _squares(features: Float[ndarray, "rows features"]) -> Float[ndarray, "rows rows"]:
    norms = (features**2).sum(1)
    return np.maximum(norms[:, None] + norms[None] - 2 * features @ features.T, 0)
