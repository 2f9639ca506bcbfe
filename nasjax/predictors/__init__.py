"""Predictors: values of architectures guessed from the measured ones, as pure `fit` and jitted `predict`."""

from typing import Any, Protocol

from jaxtyping import Array, Float
from numpy import ndarray

from nasjax.predictors.accuracy import Errors, errors
from nasjax.predictors.auto import Auto
from nasjax.predictors.gaussian_process import GaussianProcess
from nasjax.predictors.inputs import Inputs, Prior
from nasjax.predictors.mlp import MLP
from nasjax.predictors.ridge import Ridge
from nasjax.predictors.stacked import Stacked
from nasjax.predictors.svr import SVR
from nasjax.space import SearchSpace
from nasjax.types import Mask, Population


class Predictor(Protocol):
    """What every predictor offers: a frozen dataclass of settings with two pure functions.

    A model is any pytree with `held_out`: the cross-validated prediction of every row, NaN for rows that do not count.
    """

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


PREDICTORS: dict[str, type[Predictor]] = {
    "auto": Auto,
    "gaussian_process": GaussianProcess,
    "mlp": MLP,
    "ridge": Ridge,
    "stacked": Stacked,
    "svr": SVR,
}
"""The predictors by name."""

__all__ = [
    "MLP",
    "PREDICTORS",
    "SVR",
    "Auto",
    "Errors",
    "GaussianProcess",
    "Inputs",
    "Predictor",
    "Prior",
    "Ridge",
    "Stacked",
    "errors",
]
