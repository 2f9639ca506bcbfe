"""Evaluators, which measure the metrics of sub-networks, a population at a time."""

from collections.abc import Mapping
from typing import Any

from nasjax.evaluation.auto import AutoConfig
from nasjax.evaluation.base import Evaluator, measure
from nasjax.evaluation.halving import Halving
from nasjax.evaluation.masked import MaskedConfig
from nasjax.evaluation.population import EvaluatorConfig, PopulationEvaluator
from nasjax.evaluation.prefix import PrefixConfig
from nasjax.evaluation.strategies import STRATEGIES
from nasjax.evaluation.switch import SwitchConfig
from nasjax.evaluation.timed import TimedConfig

EVALUATORS = {"auto": AutoConfig, **STRATEGIES, "timed": TimedConfig}
"""Every evaluator by name."""

EvaluatorSetting = str | Mapping[str, Any] | EvaluatorConfig
"""An evaluator as a setting: a name, a mapping with `name` and settings, or settings."""

__all__ = [
    "EVALUATORS",
    "STRATEGIES",
    "AutoConfig",
    "Evaluator",
    "EvaluatorConfig",
    "EvaluatorSetting",
    "Halving",
    "MaskedConfig",
    "PopulationEvaluator",
    "PrefixConfig",
    "SwitchConfig",
    "TimedConfig",
    "measure",
]
