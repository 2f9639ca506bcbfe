"""Concurrent search: Algorithm 1 of arXiv:2202.12954 (ConcurrentNAS, later LINAS).

Measure a population; fit a predictor to every objective that is not computed exactly; run the algorithm on the predictions
for some hundred generations; measure the best of its last population; again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.algorithms.evolve import evolve
from nasjax.pareto import crowding_distance, non_dominated_sort
from nasjax.predictors import Inputs, Predictor
from nasjax.tactics.problem import CostFunction, Measured, Problem, fresh, padded
from nasjax.types import Objectives, Population, PRNGKey


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
                raise ValueError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.nothing(key, problem)

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.key_of_step()
        if np.isfinite(state.objectives).all(1).sum() < 2:
            return fresh(state, np.asarray(problem.space.sample(key, self.population)), self.population), state
        guess = _guess(problem.inputs, problem.costs, problem.predictor)  # type: ignore[arg-type]
        archs, values = padded(state)
        counts = np.asarray(np.isfinite(values).all(1))
        models = tuple(
            None if cost is not None else problem.predictor.fit(problem.inputs, archs, values[:, i], counts)
            for i, cost in enumerate(problem.costs)
        )
        # As many as the algorithm's population, again and again where there are fewer: one shape, one compilation.
        start = np.resize(_best(archs, values), (problem.algorithm.population, archs.shape[1]))
        inner = evolve(problem.algorithm, problem.space, guess, models, key, self.generations, start, len(problem.costs))
        archs = _best(np.asarray(inner.archs), np.asarray(guess(models, inner.archs)))
        return fresh(state, archs, self.population), state

    def tell(self, state: Measured, archs: Population, objectives: Objectives) -> Measured:
        return state.add(archs, objectives)


@lru_cache(maxsize=8)
def _guess(
    inputs: Inputs, costs: tuple[CostFunction | None, ...], predictor: Predictor
) -> Callable[[Any, Population], Objectives]:
    """The objectives of a population: exact ones computed, the others predicted by the models.

    The same function for the same arguments, so that searches of one space in one process compile once.
    """

    @jax.jit
    def guess(models: tuple[Any, ...], archs: Population) -> Objectives:
        columns = [
            predictor.predict(inputs, model, archs)[0] if cost is None else cost(archs)
            for cost, model in zip(costs, models, strict=True)
        ]
        return jnp.stack(columns, axis=1)

    return guess


def _best(archs: Population, values: Objectives) -> Population:
    """Architectures by rank, then by crowding distance (the emptier first); failed ones left out."""
    ranks = non_dominated_sort(values)
    order = np.lexsort((-np.asarray(crowding_distance(values, ranks)), np.asarray(ranks)))
    return archs[order[np.isfinite(values[order]).all(1)]]
