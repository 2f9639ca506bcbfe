"""Evaluators: what measures populations of sub-networks."""

from nasjax.evaluation.masked import MaskedConfig, MaskedEvaluator

EVALUATORS = {"masked": MaskedConfig}
"""Every evaluator by name."""

__all__ = ["EVALUATORS", "MaskedConfig", "MaskedEvaluator"]
