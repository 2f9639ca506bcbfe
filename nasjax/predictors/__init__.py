"""Predictors: regression models that estimate a metric of architectures from the measured ones (pure `fit`, `predict`)."""

from nasjax.predictors.accuracy import Errors, errors
from nasjax.predictors.auto import Auto
from nasjax.predictors.base import Model, Predictor
from nasjax.predictors.gaussian_process import GaussianProcess
from nasjax.predictors.inputs import Inputs, KnownInputs, Prior
from nasjax.predictors.mlp import MLP
from nasjax.predictors.ridge import Ridge
from nasjax.predictors.stacked import Stacked
from nasjax.predictors.svr import SVR

PREDICTORS: dict[str, type[Predictor]] = {
    "auto": Auto,
    "gaussian_process": GaussianProcess,
    "mlp": MLP,
    "ridge": Ridge,
    "stacked": Stacked,
    "svr": SVR,
}
"""Predictors by name, as in `predictor=NAME`."""

__all__ = [
    "MLP",
    "PREDICTORS",
    "SVR",
    "Auto",
    "Errors",
    "GaussianProcess",
    "Inputs",
    "KnownInputs",
    "Model",
    "Predictor",
    "Prior",
    "Ridge",
    "Stacked",
    "errors",
]
