"""The predictor that cross-validation likes best, chosen anew at every fit as the archive grows."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.accuracy import errors
from nasjax.predictors.bases import BASES, fitted
from nasjax.predictors.inputs import Inputs
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AutoModel:
    """The model chosen, of the base named `chosen` (static: predictions compile once a base)."""

    chosen: str = field(metadata={"static": True})
    model: Any

    @property
    def held_out(self) -> Float[Array, " rows"]:
        """The chosen model's cross-validated predictions; NaN for rows that do not count."""
        return self.model.held_out


@dataclass(frozen=True)
class Auto:
    """Fits every one of `BASES` that is bearable at this number of rows; takes the least cross-validated squared error."""

    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> AutoModel:
        """The model of the rows that count: mask True (None: all) and value not NaN. Runs on the host, not inside jit."""
        models = fitted(inputs, archs, values, mask)

        def error(name: str) -> float:
            rmse = errors(values, models[name].held_out).rmse
            return rmse if np.isfinite(rmse) else np.inf

        chosen = min(models, key=error)
        return AutoModel(chosen, models[chosen])

    @partial(jax.jit, static_argnums=0)
    def predict(
        self, inputs: SearchSpace | Inputs, model: AutoModel, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """The chosen predictor's mean and deviation."""
        return BASES[model.chosen].predictor.predict(inputs, model.model, archs)
