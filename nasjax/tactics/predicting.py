"""Predictors in tactics: models of the measured columns, and functions that score a population by them."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.pareto import crowding_distance, non_dominated_sort, penalised, violations
from nasjax.predictors import Inputs, KnownInputs, Model, Predictor, Prior, errors
from nasjax.sorting import lexsort
from nasjax.tactics.base import CostFunction, Fit, Measured, Problem, Values, padded_measurements
from nasjax.tactics.priors import read_by_predictors, training_rows
from nasjax.types import Mask, Objectives, Population, Violations

BEST_ROWS = 256
"""The number of measured architectures that searches on predictions may start from."""


class Models(NamedTuple):
    """One fitted model per column (None for exact columns), and the prior whose predictions they read."""

    columns: tuple[Model | None, ...]
    prior: Prior | None


def fit_predictors(state: Measured, rest: bool = False) -> tuple[Models, Measured]:
    """Models of all measured columns, failed rows left out, and the state with their cross-validated errors.

    With `rest` they read nothing of an earlier search; else its prior, and what it measured alike (`priors`).
    """
    problem = read_by_predictors(state, rest)
    archs, values, counts, measured = training_rows(replace(state, problem=problem), problem.predictor.max_rows)
    with problem.fitting():
        columns = fit_columns(problem, archs, values, counts)
        fits = tuple(
            Fit(i, *errors(values[:measured, i], np.asarray(model.held_out)[:measured]), getattr(model, "chosen", ""))
            for i, model in enumerate(columns)
            if model is not None
        )
    return Models(columns, problem.inputs.prior), replace(state, fits=fits)


def fit_columns(problem: Problem, archs: Population, values: Values, counts: Mask) -> tuple[Model | None, ...]:
    """One model per column, fitted to the valid rows; None for exact columns."""
    return tuple(
        None if cost is not None else problem.predictor.fit(problem.inputs, archs, values[:, i], counts)
        for i, cost in enumerate(problem.costs)
    )


class Candidates(NamedTuple):
    """A population, and what is known of it before anything is fitted: predictors' features and the exact columns."""

    archs: Population
    features: Float[Array, "pop features"]
    exact: tuple[Float[Array, " pop"] | None, ...]


class Prediction(NamedTuple):
    """Jitted functions that predict every column; exact columns are computed and have a deviation of 0."""

    describe: Callable[[Prior | None, Population], Candidates]
    means: Callable[[Models, Candidates], Values]
    """Without the deviations, which take most of the time."""
    normal: Callable[[Models, Candidates], tuple[Values, Values]]
    """Mean and standard deviation of every column."""


ScoringFunction = Callable[[Models, Population], tuple[Objectives, Violations]]
"""(models, archs) -> objectives and constraint violations."""


def prediction(problem: Problem) -> Prediction:
    """The functions that predict a problem's columns.

    Equal problems get the same functions, so that searches of one space in one process compile once.
    """
    inputs = problem.inputs
    return _cached_prediction(replace(inputs, prior=None), problem.costs, problem.predictor)  # type: ignore[arg-type]


def scoring_function(problem: Problem) -> ScoringFunction:
    """The jitted function that an algorithm optimises: objectives and violations by predicted means."""
    return _cached_scoring(prediction(problem), problem.limits, len(problem.reference))


def sort_by_rank(
    archs: Population, objectives: Objectives, violations: Violations | None = None
) -> Int[np.ndarray, "best genes"]:
    """Architectures by non-domination rank, then by crowding distance (larger first); failed ones are left out.

    Infeasible architectures come after all feasible ones, by violation.
    """
    values, order = map(np.asarray, _ranked(objectives, violations))
    return np.asarray(archs)[order[np.isfinite(values[order]).all(1)]]


@jax.jit
def _ranked(objectives: Objectives, violations: Violations | None) -> tuple[Float[Array, "pop obj"], Int[Array, " pop"]]:
    values = penalised(objectives, violations)
    return values, rank_order(values)


@jax.jit
def rank_order(values: Objectives) -> Int[Array, " pop"]:
    """Row indices by non-domination rank, then by crowding distance (larger first), invalid rows last. Works inside jit."""
    ranks = non_dominated_sort(values)
    return lexsort((-crowding_distance(values, ranks), ranks))


def best_measured(state: Measured) -> Int[np.ndarray, "best genes"]:
    """The measured architectures, best first, at least the best `BEST_ROWS`; failed ones are left out."""
    archs, values = padded_measurements(state, 2 * BEST_ROWS)
    return sort_by_rank(archs, values[:, : len(state.problem.reference)], violations(values, state.problem.limits))


@lru_cache(maxsize=8)
def _cached_prediction(given: Inputs, costs: tuple[CostFunction | None, ...], predictor: Predictor) -> Prediction:
    @jax.jit
    def describe(prior: Prior | None, archs: Population) -> Candidates:
        features = replace(given, prior=prior).features(archs) if None in costs else jnp.zeros((len(archs), 0))
        return Candidates(archs, features, tuple(None if cost is None else cost(archs) for cost in costs))

    @jax.jit
    def normal(models: Models, candidates: Candidates) -> tuple[Values, Values]:
        inputs = KnownInputs(given.space, given.parts, given.graph, models.prior, candidates.features)
        pairs = [
            predictor.predict(inputs, model, candidates.archs) if known is None else (known, jnp.zeros_like(known))
            for known, model in zip(candidates.exact, models.columns, strict=True)
        ]
        return jnp.stack([mean for mean, _ in pairs], 1), jnp.stack([deviation for _, deviation in pairs], 1)

    @jax.jit
    def means(models: Models, candidates: Candidates) -> Values:
        return normal(models, candidates)[0]

    return Prediction(describe, means, normal)


@lru_cache(maxsize=8)
def _cached_scoring(predicted: Prediction, limits: tuple[tuple[float, float], ...], objectives: int) -> ScoringFunction:
    @jax.jit
    def score(models: Models, archs: Population) -> tuple[Objectives, Violations]:
        means = predicted.means(models, predicted.describe(models.prior, archs))
        return means[:, :objectives], violations(means, limits)  # type: ignore[return-value]

    return score
