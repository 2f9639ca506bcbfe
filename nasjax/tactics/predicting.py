"""What predictors make of a problem: models of the columns that are measured, and values of any population from them."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from nasjax.pareto import crowding_distance, non_dominated_sort, penalised, violations
from nasjax.predictors import Inputs, Predictor, errors
from nasjax.tactics.problem import CostFunction, Fit, Measured, Problem, Values, padded
from nasjax.types import Objectives, Population, Violations

Models = tuple[Any, ...]
"""One fitted model a column; None where the column is computed."""


def fitted(state: Measured) -> tuple[Models, Measured]:
    """The predictor fitted to every column that is measured, rows that failed left out; the state notes how well."""
    problem = state.problem
    archs, values = padded(state)
    counts = np.asarray(np.isfinite(values).all(1))
    models = tuple(
        None if cost is not None else problem.predictor.fit(problem.inputs, archs, values[:, i], counts)
        for i, cost in enumerate(problem.costs)
    )
    fits = tuple(Fit(i, *errors(values[:, i], model.held_out)) for i, model in enumerate(models) if model is not None)
    return models, replace(state, fits=fits)


Predicted = Callable[[Models, Population], tuple[Values, Values]]
Scored = Callable[[Models, Population], tuple[Objectives, Violations]]


def predicted(problem: Problem) -> Predicted:
    """(models, archs) -> mean and deviation of every column, jitted: predicted, or computed and certain.

    The same function for problems that are alike, so that searches of one space in one process compile once.
    """
    return _predicted(problem.inputs, problem.costs, problem.predictor)  # type: ignore[arg-type]


def scored(problem: Problem) -> Scored:
    """(models, archs) -> objectives and violations by the means, jitted: what an algorithm searches."""
    return _scored(predicted(problem), problem.limits, len(problem.reference))


def ranked(archs: Population, objectives: Objectives, violations: Violations | None = None) -> Int[np.ndarray, "best genes"]:
    """Architectures by rank, then by crowding distance (the emptier first); failed ones left out."""
    values = penalised(objectives, violations)
    ranks = non_dominated_sort(values)
    order = np.lexsort((-np.asarray(crowding_distance(values, ranks)), np.asarray(ranks)))
    return np.asarray(archs)[order[np.isfinite(np.asarray(values)[order]).all(1)]]


def best(state: Measured) -> Int[np.ndarray, "best genes"]:
    """What was measured, best first; failed ones left out. Padded meanwhile, so that nothing compiles again."""
    archs, values = padded(state)
    return ranked(archs, values[:, : len(state.problem.reference)], violations(values, state.problem.limits))


@lru_cache(maxsize=8)
def _predicted(inputs: Inputs, costs: tuple[CostFunction | None, ...], predictor: Predictor) -> Predicted:
    @jax.jit
    def predicted(models: Models, archs: Population) -> tuple[Values, Values]:
        pairs = [
            predictor.predict(inputs, model, archs) if cost is None else (cost(archs), jnp.zeros(len(archs), jnp.float32))
            for cost, model in zip(costs, models, strict=True)
        ]
        return jnp.stack([mean for mean, _ in pairs], 1), jnp.stack([deviation for _, deviation in pairs], 1)

    return predicted


@lru_cache(maxsize=8)
def _scored(predicted: Predicted, limits: tuple[tuple[float, float], ...], objectives: int) -> Scored:
    @jax.jit
    def scored(models: Models, archs: Population) -> tuple[Objectives, Violations]:
        means = predicted(models, archs)[0]
        return means[:, :objectives], violations(means, limits)  # type: ignore[return-value]

    return scored
