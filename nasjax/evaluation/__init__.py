"""Evaluators: what measures populations of sub-networks."""

from nasjax.evaluation.evaluator import EvaluatorConfig, PopulationEvaluator
from nasjax.evaluation.masked import MaskedConfig

EVALUATORS = {"masked": MaskedConfig}
"""Every evaluator by name."""

__all__ = ["EVALUATORS", "EvaluatorConfig", "MaskedConfig", "PopulationEvaluator"]
