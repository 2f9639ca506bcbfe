"""Stacked predictors: a weighted sum of the base predictors' outputs.

The non-negative weights are those that explain the values best from the cross-validated held (Breiman 1996, "Stacked
regressions").
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.base import Model
from nasjax.predictors.bases import BASES, fit_bases
from nasjax.predictors.inputs import Inputs
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population

WEIGHT_FOLDS = 5
"""Folds for cross-validating the weights: held-out predictions use weights that have not seen the row's value."""


class StackedModel(NamedTuple):
    """Fitted base models by name, and their weights in the same order."""

    models: dict[str, Model]
    weights: Float[Array, " bases"]
    mean: Float[Array, ""]
    held_out: Float[Array, " rows"]
    """Weighted sum of the models' cross-validated held; NaN for invalid rows."""


@dataclass(frozen=True)
class Stacked:
    """Fits all `BASES` suited to the number of rows and weights them by non-negative least squares."""

    max_rows: ClassVar[float] = math.inf

    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> StackedModel:
        """Fits the valid rows: mask True (None: all) and value not NaN. Runs on the host, not inside jit."""
        # Sorted by name, as JAX orders the entries of a dict.
        models = dict(sorted(fit_bases(inputs, archs, values, mask).items()))
        y = np.asarray(values, np.float64)
        held = np.stack([np.asarray(model.held_out, np.float64) for model in models.values()], 1)
        rows = np.flatnonzero(np.isfinite(held).all(1))
        counts = np.isfinite(y) if mask is None else np.isfinite(y) & np.asarray(mask)
        mean = float(y[counts].mean()) if counts.any() else 0.0
        held_out = np.full(len(y), np.nan)
        weights = np.full(len(models), 1 / len(models))
        if len(rows):
            known, x = y[rows] - mean, held[rows] - mean
            weights = _nnls_weights(x, known)
            fold_of = np.arange(len(rows)) % WEIGHT_FOLDS
            for fold in range(WEIGHT_FOLDS):
                held_out[rows[fold_of == fold]] = mean + x[fold_of == fold] @ _nnls_weights(
                    x[fold_of != fold], known[fold_of != fold]
                )
        number = partial(jnp.asarray, dtype=jnp.float32)
        return StackedModel(models, number(weights), number(mean), number(held_out))

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: StackedModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Weighted mean; standard deviation of the weighted mixture (variance within and between the models)."""
        pairs = [BASES[name].predictor.predict(inputs, base, archs) for name, base in model.models.items()]
        means, deviations = (jnp.stack(part, 1) for part in zip(*pairs, strict=True))
        total = jnp.maximum(model.weights.sum(), 1e-6)
        mean = model.mean + (means - model.mean) @ model.weights
        middle = (means @ model.weights / total)[:, None]
        variance = (deviations**2 + (means - middle) ** 2) @ model.weights / total
        return mean, jnp.sqrt(jnp.maximum(variance, 1e-12))


def _nnls_weights(held: Float[ndarray, "rows bases"], values: Float[ndarray, " rows"]) -> Float[ndarray, " bases"]:
    """Non-negative least squares, regularised towards equal weights: similar predictors share, few rows decide little."""
    from scipy.optimize import nnls  # Takes a second.

    bases = held.shape[1]
    pull = np.sqrt(max((values**2).mean(), 1e-12)) if len(values) else 1.0
    rows = np.concatenate([held, pull * np.eye(bases)])
    return nnls(rows, np.concatenate([values, np.full(bases, pull / bases)]))[0]
