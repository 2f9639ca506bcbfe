"""The predictors that others are made of, each where its cost is bearable."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.gaussian_process import GaussianProcess
from nasjax.predictors.inputs import Inputs
from nasjax.predictors.mlp import MLP
from nasjax.predictors.ridge import Ridge
from nasjax.predictors.svr import SVR
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Base(NamedTuple):
    """A predictor, and the numbers of rows between which it is tried."""

    predictor: Any
    least: int
    most: float


BASES: dict[str, Base] = {
    "ridge": Base(Ridge(), 0, np.inf),
    "gaussian_process": Base(GaussianProcess(), 2, 600),
    "svr": Base(SVR(), 10, 1_000),
    "mlp": Base(MLP(), 100, np.inf),
}
"""The predictors tried, by name. Exact kernels cost the cube of the rows; networks pay where rows are many."""


def fitted(
    inputs: SearchSpace | Inputs, archs: Population, values: Float[Array | ndarray, " pop"], mask: Mask | None
) -> dict[str, Any]:
    """The models of the bases bearable at this number of rows that count."""
    values = np.asarray(values, np.float32)
    counts = ~np.isnan(values) if mask is None else ~np.isnan(values) & np.asarray(mask)
    rows = int(counts.sum())
    return {
        name: _fitted(base, inputs, np.asarray(archs), values, counts)
        for name, base in BASES.items()
        if base.least <= rows <= base.most
    }


def _fitted(
    base: Base,
    inputs: SearchSpace | Inputs,
    archs: Population,
    values: Float[ndarray, " pop"],
    counts: Mask,
) -> Any:
    # A predictor for few rows does not pay for the padding of a large budget; its arrays keep one size all the same.
    room = 1 << (int(min(base.most, len(values))) - 1).bit_length() if len(values) else 0
    if len(values) <= room:
        return base.predictor.fit(inputs, archs, values, counts)
    kept = np.argsort(~counts, kind="stable")[:room]
    model = base.predictor.fit(inputs, archs[kept], values[kept], counts[kept])
    held_out = np.full(len(values), np.nan, np.float32)
    held_out[kept] = np.asarray(model.held_out)
    return model._replace(held_out=jnp.asarray(held_out))
