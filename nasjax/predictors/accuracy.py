"""How far cross-validated predictions are from what was measured."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray
from scipy.stats import kendalltau

from nasjax.errors import ConfigError


class Errors(NamedTuple):
    """Errors of predictions; NaN where there are too few rows to say (tau: fewer than two, or all alike)."""

    rows: int
    mape: float
    """Mean absolute error in % of the value (of values other than 0)."""
    rmse: float
    """Root mean squared error, in units of the values."""
    tau: float
    """Kendall's tau-b between predictions and values, -1 to 1."""


def errors(values: Float[Array | ndarray, " pop"], held_out: Float[Array | ndarray, " pop"]) -> Errors:
    """Errors of a model's `held_out` predictions, in float64 on the host; rows where either is NaN are left out."""
    values, held_out = np.asarray(values, np.float64), np.asarray(held_out, np.float64)
    if values.shape != held_out.shape:
        raise ConfigError(f"values have shape {values.shape}, their predictions {held_out.shape}; they must be the same")
    both = np.isfinite(values) & np.isfinite(held_out)
    values, found = values[both], held_out[both]
    missed, some = np.abs(found - values), values != 0
    return Errors(
        rows=len(values),
        mape=float(100 * np.mean(missed[some] / np.abs(values[some]))) if some.any() else np.nan,
        rmse=float(np.sqrt(np.mean(missed**2))) if len(values) else np.nan,
        tau=float(kendalltau(found, values).statistic) if len(values) > 1 else np.nan,
    )
