"""Evaluators: what measures populations of sub-networks."""

from nasjax.evaluation.auto import WAYS, AutoConfig
from nasjax.evaluation.base import EvaluatorConfig, PopulationEvaluator
from nasjax.evaluation.halving import Halving
from nasjax.evaluation.masked import MaskedConfig
from nasjax.evaluation.prefix import PrefixConfig
from nasjax.evaluation.switch import SwitchConfig

EVALUATORS = {**WAYS, "auto": AutoConfig}
"""Every evaluator by name."""

__all__ = [
    "EVALUATORS",
    "WAYS",
    "AutoConfig",
    "EvaluatorConfig",
    "Halving",
    "MaskedConfig",
    "PopulationEvaluator",
    "PrefixConfig",
    "SwitchConfig",
]
