"""Evaluators, which measure the metrics of sub-networks, a population at a time."""

from nasjax.evaluation.auto import STRATEGIES, AutoConfig
from nasjax.evaluation.base import Evaluator, measure
from nasjax.evaluation.halving import Halving
from nasjax.evaluation.masked import MaskedConfig
from nasjax.evaluation.population import EvaluatorConfig, PopulationEvaluator
from nasjax.evaluation.prefix import PrefixConfig
from nasjax.evaluation.switch import SwitchConfig

EVALUATORS = {**STRATEGIES, "auto": AutoConfig}
"""Every evaluator by name."""

__all__ = [
    "EVALUATORS",
    "STRATEGIES",
    "AutoConfig",
    "Evaluator",
    "EvaluatorConfig",
    "Halving",
    "MaskedConfig",
    "PopulationEvaluator",
    "PrefixConfig",
    "SwitchConfig",
    "measure",
]
