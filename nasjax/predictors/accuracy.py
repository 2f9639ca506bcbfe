"""Errors of predictions against measured values."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

BLOCK = 256
"""Rows whose pairs with all others are compared at once."""


class Errors(NamedTuple):
    """Errors of predictions; NaN if there are too few rows (tau: fewer than two rows, or all values equal)."""

    rows: int
    """The number of rows compared."""
    mape: float
    """Mean absolute percentage error, in %; rows whose value is 0 are left out."""
    rmse: float
    """Root mean squared error, in the unit of the values."""
    tau: float
    """Kendall's tau-b between predictions and values, from -1 to 1."""


def errors(values: Float[Array | ndarray, " pop"], held_out: Float[Array | ndarray, " pop"]) -> Errors:
    """Errors of `held_out` predictions of `values`, computed in float64 on the host; rows with a NaN are left out.

    Raises ValueError if the shapes differ.
    """
    values, held_out = np.asarray(values, np.float64), np.asarray(held_out, np.float64)
    if values.shape != held_out.shape:
        raise ValueError(f"values have shape {values.shape}, their predictions {held_out.shape}; the shapes must be equal")
    both = np.isfinite(values) & np.isfinite(held_out)
    values, predicted = values[both], held_out[both]
    residuals, nonzero = np.abs(predicted - values), values != 0
    return Errors(
        rows=len(values),
        mape=float(100 * np.mean(residuals[nonzero] / np.abs(values[nonzero]))) if nonzero.any() else np.nan,
        rmse=float(np.sqrt(np.mean(residuals**2))) if len(values) else np.nan,
        tau=kendall_tau(predicted, np.asarray(values)),
    )


def kendall_tau(one: Float[ndarray, " pop"], other: Float[ndarray, " pop"]) -> float:
    """Kendall's tau-b (1945) of two finite columns; NaN with fewer than two rows, or if a column's values are all equal.

    As scipy.stats.kendalltau, without its import, which takes a second: all pairs are compared, in blocks of rows.
    """
    sums = np.zeros(3)
    for start in range(0, len(one), BLOCK):
        first, second = (np.sign(column[start : start + BLOCK, None] - column[None]).ravel() for column in (one, other))
        sums += first @ second, first @ first, second @ second
    pairs = math.sqrt(sums[1] * sums[2])
    return float(sums[0] / pairs) if pairs else math.nan
