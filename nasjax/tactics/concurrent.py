"""Concurrent search: Algorithm 1 of arXiv:2202.12954 (ConcurrentNAS, later called LINAS).

Each step measures a population, fits a predictor to every objective that is not computed exactly, runs the algorithm on the
predictions for several hundred generations, and proposes the best of its last population.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.pareto import penalised, violations
from nasjax.tactics.base import Measured, Problem, Values, initial_batch, padded_measurements, unmeasured
from nasjax.tactics.predicting import BEST_ROWS, Models, fit_predictors, rank_order, scoring_function
from nasjax.tactics.priors import with_prior
from nasjax.types import Objectives, Population, PRNGKey, Violations


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
        found = self.proposals(problem, models, key, *padded_measurements(state, 2 * BEST_ROWS))
        return unmeasured(state, np.asarray(found), self.population), state

    def proposals(
        self, problem: Problem, models: Models, key: PRNGKey, archs: Population, values: Values
    ) -> Int[Array, "pop genes"]:
        """The last population of an inner search on predictions, best first, from the best of what was measured.

        Works inside jit. Rows of `values` with NaN do not count.
        """
        goals, score = len(problem.reference), scoring_function(problem)
        broken = violations(values, problem.limits)
        start = _best_repeated(archs, values[:, :goals], broken, problem.algorithm.population)
        inner = evolve(problem.algorithm, problem.space, score, models, key, self.generations, start, goals)
        return _best_first(inner.archs, *score(models, inner.archs))

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)


@partial(jax.jit, static_argnums=3)
def _best_repeated(
    archs: Population, objectives: Objectives, violations: Violations, number: int
) -> Int[Array, "number genes"]:
    """The best of those without NaN, repeated up to `number` rows: one shape, one compilation."""
    places = jnp.arange(number, dtype=jnp.int32) % jnp.isfinite(violations).sum()
    return _best_first(archs, objectives, violations)[places]


@jax.jit
def _best_first(archs: Population, objectives: Objectives, violations: Violations) -> Int[Array, "pop genes"]:
    return jnp.asarray(archs)[rank_order(penalised(objectives, violations))]
