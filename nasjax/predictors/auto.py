"""The predictor with the least cross-validated error, selected again at every fit as the archive grows."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.accuracy import errors
from nasjax.predictors.base import Model
from nasjax.predictors.bases import BASES, fit_bases
from nasjax.predictors.inputs import Inputs
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AutoModel:
    """The selected model; `chosen` is its predictor's name in `BASES` (static: predictions compile once per predictor)."""

    chosen: str = field(metadata={"static": True})
    model: Model

    @property
    def held_out(self) -> Float[Array, " rows"]:
        """The selected model's cross-validated predictions; NaN for invalid rows."""
        return self.model.held_out


@dataclass(frozen=True)
class Auto:
    """Fits all `BASES` suited to the number of rows and selects the one with the least cross-validated RMSE."""

    max_rows: ClassVar[float] = math.inf

    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> AutoModel:
        """Fits the valid rows: mask True (None: all) and value not NaN. Runs on the host, not inside jit."""
        models = fit_bases(inputs, archs, values, mask)

        def error(name: str) -> float:
            rmse = errors(values, models[name].held_out).rmse
            return rmse if np.isfinite(rmse) else np.inf

        chosen = min(models, key=error)
        return AutoModel(chosen, models[chosen])

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: AutoModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean and standard deviation by the selected predictor."""
        return BASES[model.chosen].predictor.predict(inputs, model.model, archs)
