"""Predictors: values of architectures guessed from the measured ones, as pure jitted `fit` and `predict`."""

from typing import Any, Protocol

from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.gaussian_process import GaussianProcess
from nasjax.predictors.inputs import Inputs
from nasjax.predictors.ridge import Ridge
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Predictor(Protocol):
    """What every predictor offers: a frozen dataclass of settings with two pure functions; the model is any pytree."""

    def fit(
        self,
        inputs: SearchSpace | Inputs,
        archs: Population,
        values: Float[Array | ndarray, " pop"],
        mask: Mask | None = None,
    ) -> Any:
        """The model of the rows whose mask is True (None: all) and whose value is not NaN."""

    def predict(
        self, inputs: SearchSpace | Inputs, model: Any, archs: Population
    ) -> tuple[Float[Array, " pop"], Float[Array, " pop"]]:
        """Mean and standard deviation, in units of the values."""


PREDICTORS: dict[str, type[Predictor]] = {"gaussian_process": GaussianProcess, "ridge": Ridge}
"""The predictors by name."""

__all__ = ["PREDICTORS", "GaussianProcess", "Inputs", "Predictor", "Ridge"]
