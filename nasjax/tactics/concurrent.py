"""Concurrent search: Algorithm 1 of arXiv:2202.12954 (ConcurrentNAS, later LINAS).

Measure a population; fit a predictor to every objective that is not computed exactly; run the algorithm on the predictions
for some hundred generations; measure the best of its last population; again.
"""

from dataclasses import dataclass

import numpy as np

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, beginning, fresh
from nasjax.tactics.predicting import best, fitted, informed, ranked, scored
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Concurrent:
    """Concurrent search: predictors are fitted to all that was measured, and searched for what to measure next.

    `population` are measured at a time; the inner search runs `generations` on predictions.
    """

    population: int = 16
    generations: int = 250

    def __post_init__(self):
        for name in ("population", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.nothing(key, informed(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.key_of_step()
        if np.isfinite(state.values).all(1).sum() < 2:
            return beginning(state, self.population), state
        models, state = fitted(state)
        # As many as the algorithm's population, again and again where there are fewer: one shape, one compilation.
        start = np.resize(best(state), (problem.algorithm.population, len(problem.space.genes)))
        score, objectives = scored(problem), len(problem.reference)
        inner = evolve(problem.algorithm, problem.space, score, models, key, self.generations, start, objectives)
        found = ranked(inner.archs, *score(models, inner.archs))
        return fresh(state, found, self.population), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
