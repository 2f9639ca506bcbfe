"""Predictors stacked: a weighted sum of several, as in the later papers on super-networks.

Weights are the non-negative ones that explain the values best from the cross-validated predictions (Breiman 1996, "Stacked
regressions").
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray
from scipy.optimize import nnls

from nasjax.predictors.bases import BASES, fitted
from nasjax.predictors.inputs import Inputs
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population

FOLDS = 5
"""Of the weights: a row's held-out prediction has weights that have not seen its value."""


class StackedModel(NamedTuple):
    """Models by the names of `BASES`, and their weights in the same order."""

    models: dict[str, Any]
    weights: Float[Array, " bases"]
    mean: Float[Array, ""]
    held_out: Float[Array, " rows"]
    """The weighted sum of the models' cross-validated predictions; NaN for rows that do not count."""


@dataclass(frozen=True)
class Stacked:
    """Every one of `BASES` that is bearable at this number of rows, weighted by non-negative least squares."""

    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> StackedModel:
        """The model of the rows that count: mask True (None: all) and value not NaN. Runs on the host, not inside jit."""
        # By name in order, as JAX orders the entries of a dict.
        models = dict(sorted(fitted(inputs, archs, values, mask).items()))
        y = np.asarray(values, np.float64)
        found = np.stack([np.asarray(model.held_out, np.float64) for model in models.values()], 1)
        rows = np.flatnonzero(np.isfinite(found).all(1))
        counts = np.isfinite(y) if mask is None else np.isfinite(y) & np.asarray(mask)
        mean = float(y[counts].mean()) if counts.any() else 0.0
        held_out = np.full(len(y), np.nan)
        weights = np.full(len(models), 1 / len(models))
        if len(rows):
            known, x = y[rows] - mean, found[rows] - mean
            weights = _weights(x, known)
            turn = np.arange(len(rows)) % FOLDS
            for fold in range(FOLDS):
                held_out[rows[turn == fold]] = mean + x[turn == fold] @ _weights(x[turn != fold], known[turn != fold])
        number = partial(jnp.asarray, dtype=jnp.float32)
        return StackedModel(models, number(weights), number(mean), number(held_out))

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: StackedModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Weighted mean; deviation within and between the models, by their weights."""
        pairs = [BASES[name].predictor.predict(inputs, base, archs) for name, base in model.models.items()]
        means, deviations = (jnp.stack(part, 1) for part in zip(*pairs, strict=True))
        total = jnp.maximum(model.weights.sum(), 1e-6)
        mean = model.mean + (means - model.mean) @ model.weights
        middle = (means @ model.weights / total)[:, None]
        variance = (deviations**2 + (means - middle) ** 2) @ model.weights / total
        return mean, jnp.sqrt(jnp.maximum(variance, 1e-12))


def _weights(found: Float[ndarray, "rows bases"], values: Float[ndarray, " rows"]) -> Float[ndarray, " bases"]:
    """Non-negative least squares, drawn a little towards equal shares: near copies share, few rows decide little."""
    bases = found.shape[1]
    pull = np.sqrt(max((values**2).mean(), 1e-12)) if len(values) else 1.0
    rows = np.concatenate([found, pull * np.eye(bases)])
    return nnls(rows, np.concatenate([values, np.full(bases, pull / bases)]))[0]
