"""Concurrent search: Algorithm 1 of arXiv:2202.12954 (ConcurrentNAS, later called LINAS).

Each step measures a population, fits a predictor to every objective that is not computed exactly, runs the algorithm on the
predictions for several hundred generations, and proposes the best of its last population.
"""

from dataclasses import dataclass

import numpy as np

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, initial_batch, unmeasured
from nasjax.tactics.predicting import best_measured, fit_predictors, scoring_function, sort_by_rank, with_prior
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Concurrent:
    """Concurrent search: predictors are refitted to all measurements, and an inner search on them proposes the next batch.

    `population` architectures are measured per step; the inner search runs for `generations`. Raises ConfigError for invalid
    settings.
    """

    population: int = 16
    generations: int = 250

    def __post_init__(self):
        for name in ("population", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.empty(key, with_prior(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.step_key()
        if np.isfinite(state.values).all(1).sum() < 2:
            return initial_batch(state, self.population), state
        models, state = fit_predictors(state)
        # Rows are repeated up to the algorithm's population: one shape, one compilation.
        start = np.resize(best_measured(state), (problem.algorithm.population, len(problem.space.genes)))
        score, objectives = scoring_function(problem), len(problem.reference)
        inner = evolve(problem.algorithm, problem.space, score, models, key, self.generations, start, objectives)
        found = sort_by_rank(inner.archs, *score(models, inner.archs))
        return unmeasured(state, found, self.population), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
