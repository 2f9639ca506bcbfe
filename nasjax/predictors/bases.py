"""Base predictors, which `auto` selects from and `stacked` combines."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.base import Model, Predictor
from nasjax.predictors.gaussian_process import GaussianProcess
from nasjax.predictors.inputs import Inputs
from nasjax.predictors.mlp import MLP
from nasjax.predictors.ridge import Ridge
from nasjax.predictors.svr import SVR
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Base(NamedTuple):
    """A predictor, and the least number of valid rows for which it is used; the most is its `max_rows`."""

    predictor: Predictor
    min_rows: int


BASES: dict[str, Base] = {
    "ridge": Base(Ridge(), 0),
    "gaussian_process": Base(GaussianProcess(), 2),
    "svr": Base(SVR(), 10),
    "mlp": Base(MLP(), 100),
}
"""Base predictors by name. Exact kernel methods take time cubic in the rows; neural networks need many rows."""


def fit_bases(
    inputs: SearchSpace | Inputs, archs: Population, values: Float[Array | ndarray, " pop"], mask: Mask | None
) -> dict[str, Model]:
    """A fitted model by name for each of `BASES` whose range contains the number of valid rows."""
    values = np.asarray(values, np.float32)
    valid = ~np.isnan(values) if mask is None else ~np.isnan(values) & np.asarray(mask)
    rows = int(valid.sum())
    return {
        name: _fit_base(base, inputs, np.asarray(archs), values, valid)
        for name, base in BASES.items()
        if base.min_rows <= rows <= base.predictor.max_rows
    }


def _fit_base(
    base: Base,
    inputs: SearchSpace | Inputs,
    archs: Population,
    values: Float[ndarray, " pop"],
    valid: Mask,
) -> Model:
    """Fits one base predictor. If `archs` is padded beyond the number of rows it is used for, surplus padding is cut off."""
    # A predictor for few rows should not pay for the padding of a large budget; a power of two avoids recompilation.
    capacity = 1 << (int(min(base.predictor.max_rows, len(values))) - 1).bit_length() if len(values) else 0
    if len(values) <= capacity:
        return base.predictor.fit(inputs, archs, values, valid)
    kept = np.argsort(~valid, kind="stable")[:capacity]
    model = base.predictor.fit(inputs, archs[kept], values[kept], valid[kept])
    held_out = np.full(len(values), np.nan, np.float32)
    held_out[kept] = np.asarray(model.held_out)
    return model._replace(held_out=jnp.asarray(held_out))  # type: ignore[attr-defined]
