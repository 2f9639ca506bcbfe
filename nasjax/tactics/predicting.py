"""What predictors make of a problem: models of the columns that are measured, and values of any population from them."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nasjax.pareto import crowding_distance, non_dominated_sort, penalised, violations
from nasjax.predictors import Inputs, Predictor, Prior, errors
from nasjax.space import SearchSpace
from nasjax.tactics.base import CostFunction, Fit, Measured, Problem, Values, padded
from nasjax.types import Mask, Objectives, Population, Violations

LEAST, MOST = 8, 256
"""Of an earlier search's values: with fewer nothing is expected of them, more than that cost much and tell little."""


class Models(NamedTuple):
    """One fitted model a column (None where the column is computed), and the prior that they read."""

    columns: tuple[Any, ...]
    prior: Prior | None


def informed(problem: Problem) -> Problem:
    """The problem whose predictors also read what its warm start's values, where they are known, let one expect.

    A predictor is fitted to the earlier values of every measured column, the best architectures before others. As inputs of
    the new predictors its guesses count as much as the new measurements agree with them.
    """
    warm, inputs = problem.warm, problem.inputs
    if warm is None:
        return problem
    archs = np.resize(warm.archs[:MOST], (MOST, warm.archs.shape[1]))
    models = []
    for values, cost in zip(warm.values[:MOST].T, problem.costs, strict=True):
        if cost is None and np.isfinite(values).sum() >= LEAST:
            padded = np.full(MOST, np.nan, np.float32)
            padded[: len(values)] = values
            models.append(problem.predictor.fit(inputs, archs, padded))
    prior = Prior(problem.predictor, inputs, tuple(models)) if models else None
    return replace(problem, inputs=replace(inputs, prior=prior))


def fitted(state: Measured) -> tuple[Models, Measured]:
    """The predictor fitted to every column that is measured, rows that failed left out; the state notes how well."""
    problem = state.problem
    archs, values = padded(state)
    counts = np.asarray(np.isfinite(values).all(1))
    columns = fitted_columns(problem, archs, values, counts)
    fits = tuple(
        Fit(i, *errors(values[:, i], model.held_out), getattr(model, "chosen", ""))
        for i, model in enumerate(columns)
        if model is not None
    )
    return Models(columns, problem.inputs.prior), replace(state, fits=fits)


def fitted_columns(problem: Problem, archs: Population, values: Values, counts: Mask) -> tuple[Any, ...]:
    """The predictor fitted to the rows that count, one model a column; None where the column is computed."""
    return tuple(
        None if cost is not None else problem.predictor.fit(problem.inputs, archs, values[:, i], counts)
        for i, cost in enumerate(problem.costs)
    )


Predicted = Callable[[Models, Population], tuple[Values, Values]]
Scored = Callable[[Models, Population], tuple[Objectives, Violations]]


def predicted(problem: Problem) -> Predicted:
    """(models, archs) -> mean and deviation of every column, jitted: predicted, or computed and certain.

    The same function for problems that are alike, so that searches of one space in one process compile once.
    """
    inputs = problem.inputs
    return _predicted(inputs.space, inputs.parts, problem.costs, problem.predictor)  # type: ignore[arg-type]


def scored(problem: Problem) -> Scored:
    """(models, archs) -> objectives and violations by the means, jitted: what an algorithm searches."""
    return _scored(predicted(problem), problem.limits, len(problem.reference))


def ranked(archs: Population, objectives: Objectives, violations: Violations | None = None) -> Int[np.ndarray, "best genes"]:
    """Architectures by rank, then by crowding distance (the emptier first); failed ones left out."""
    values = penalised(objectives, violations)
    order = np.asarray(best_first(values))
    return np.asarray(archs)[order[np.isfinite(np.asarray(values)[order]).all(1)]]


def best_first(values: Objectives) -> Int[Array, " pop"]:
    """Rows by rank, then by crowding distance (the emptier first); those that do not count last. For use inside jit, too."""
    ranks = non_dominated_sort(values)
    return jnp.lexsort((-crowding_distance(values, ranks), ranks))


def best(state: Measured) -> Int[np.ndarray, "best genes"]:
    """What was measured, best first; failed ones left out. Padded meanwhile, so that nothing compiles again."""
    archs, values = padded(state)
    return ranked(archs, values[:, : len(state.problem.reference)], violations(values, state.problem.limits))


@lru_cache(maxsize=8)
def _predicted(space: SearchSpace, parts: Any, costs: tuple[CostFunction | None, ...], predictor: Predictor) -> Predicted:
    @jax.jit
    def predicted(models: Models, archs: Population) -> tuple[Values, Values]:
        inputs = Inputs(space, parts, models.prior)
        pairs = [
            predictor.predict(inputs, model, archs) if cost is None else (cost(archs), jnp.zeros(len(archs), jnp.float32))
            for cost, model in zip(costs, models.columns, strict=True)
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
