"""Greedy expected hypervolume improvement on predictions: few validations, each where it adds most.

A start spread over the exact cost, both extremes included; then, again and again: a predictor is fitted to every objective
that is not computed, an algorithm searches the predictions from the front on (a small space is predicted whole), and of all
that it finds the batch is taken that promises to add most to the hypervolume.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated_exact, violations
from nasjax.space import duplicates
from nasjax.tactics.base import ENUMERABLE, Measured, Problem, Values, beginning, broken, fresh
from nasjax.tactics.improvement import choose
from nasjax.tactics.predicting import best, fitted, informed, predicted, scored
from nasjax.types import Population, PRNGKey

FRONT = 128
"""Rows that the front is padded to, so that nothing compiles again as it grows."""

WHOLE = 20_000
"""Architectures that are predicted whole, rather than searched."""

POOL = 1024
"""Candidates between which the batch is chosen."""


@dataclass(frozen=True)
class Ehvi:
    """`start` are measured first (twice as many where no exact objective spreads them), `batch` at a time then.

    Predictions' means alone decide below `greedy` measurements, and about half of every batch beyond.
    """

    start: int = 10
    batch: int = 5
    generations: int = 100
    greedy: int = 100

    def __post_init__(self):
        for name in ("start", "batch", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.nothing(key, informed(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        if np.isfinite(state.values).all(1).sum() < min(self.start, 4):
            if state.problem.warm is not None:
                return beginning(state, self.start), state
            exact = any(cost is not None for cost in state.problem.costs[: len(state.problem.reference)])
            number = self.start if exact else 2 * self.start
            return fresh(state, spread(state.problem, state.key_of_step(), number), number), state
        models, state = fitted(state)
        return fresh(state, self._promising(state, models), self.batch), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)

    def _promising(self, state: Measured, models: Any) -> Population:
        """The batch, best first."""
        problem, key = state.problem, state.key_of_step()
        goals = len(problem.reference)
        pool = _whole(problem)
        if pool is None:
            pool = self._searched(state, models, key)
        if problem.repair is not None:
            pool = jnp.asarray(problem.repair(np.asarray(pool)))
        means, deviations = predicted(problem)(models, pool)
        front = _front(state)
        reference = jnp.asarray(problem.reference, jnp.float32)
        feasible, spare = _outlook(means, deviations, front, reference, problem.limits)
        known = np.full((problem.capacity, pool.shape[1]), -1, np.int32)
        known[: len(state.archs)] = state.archs[: problem.capacity]
        seen = duplicates(jnp.concatenate([jnp.asarray(known), pool]))[len(known) :]
        # Half of the batch by the means, which are the better guide on steep spaces; the rest by expectation, once there is
        # enough to trust the deviations.
        halves = ((-(-self.batch // 2), 0.0), (self.batch // 2, float(len(state.archs) >= self.greedy)))
        rows: list[int] = []
        for number, scale in halves:
            if number:
                doubt = jnp.float32(scale) * deviations[:, :goals]
                new = choose(front, means[:, :goals], doubt, feasible, seen, reference, spare, number)
                front, seen = jnp.concatenate([front, means[new, :goals]]), jnp.asarray(seen).at[new].set(True)
                rows += np.asarray(new).tolist()
        return np.asarray(pool)[rows]

    def _searched(self, state: Measured, models: Any, key: PRNGKey) -> Int[Array, "pool genes"]:
        """What the algorithm finds on the predictions from the front on, with mutants and a few from anywhere."""
        problem, space = state.problem, state.problem.space
        inner, draw, near = jax.random.split(key, 3)
        # One shape, one compilation, however few there are.
        known = np.resize(best(state), (FRONT, len(space.genes)))
        mutants, half = space.mutate(near, known, 2 / len(space.genes)), -(-problem.algorithm.population // 2)
        start = np.resize(np.concatenate([known[:half], np.asarray(mutants)]), (2 * half, known.shape[1]))
        score, goals = scored(problem), len(problem.reference)
        found = evolve(problem.algorithm, space, score, models, inner, self.generations, start, goals)
        return _pool(space, draw, found.archs, jnp.asarray(known))


def spread(problem: Problem, key: PRNGKey, number: int) -> Population:
    """Architectures evenly spread over the first exact objective, from the least to what still counts, extremes included.

    Over nothing where no objective is exact. Those that break exact constraints come last.
    """
    space, goals = problem.space, len(problem.reference)
    archs = _slopes(space, key, 64 * number)
    excess = broken(problem, archs)
    archs = archs[np.argsort(excess, kind="stable")][: max(int((excess == 0).sum()), number)]
    first = next((i for i, cost in enumerate(problem.costs[:goals]) if cost is not None), None)
    if first is None:
        return archs
    costs = np.asarray(problem.costs[first](jnp.asarray(archs)))  # type: ignore[misc]
    wanted = np.linspace(costs.min(), max(min(costs.max(), problem.reference[first]), costs.min()), number)
    return archs[[int(np.abs(costs - value).argmin()) for value in wanted]]


def _slopes(space: Any, key: PRNGKey, number: int) -> Int[np.ndarray, "pop genes"]:
    """The smallest, the largest and all between them: ordered genes lean to one end, from row to row to another.

    Without ordered genes they are just drawn.
    """
    lean, draw, other = jax.random.split(key, 3)
    counts = np.array(space.counts, np.int32)
    levels = jax.random.binomial(draw, counts - 1.0, jax.random.uniform(lean, (number, 1)), (number, len(counts)))
    ordered = np.array([gene.ordered for gene in space.genes])
    raw = np.where(ordered, np.asarray(levels, np.int32), np.asarray(space.sample_raw(other, number)))
    ends = np.stack([space.smallest(), space.largest()]) if ordered.all() else raw[:0]
    return np.concatenate([ends, space.canonical(raw.astype(np.int32))])


@lru_cache(maxsize=4)
def _whole(problem: Problem) -> Int[Array, "pool genes"] | None:
    """All architectures of a small space; None of a larger one."""
    if problem.rows is not None and len(problem.rows) <= WHOLE:
        return jnp.asarray(problem.rows)
    if problem.rows is None and problem.space.size <= WHOLE and math.prod(problem.space.counts) <= ENUMERABLE:
        return jnp.asarray(problem.space.everything())
    return None


@partial(jax.jit, static_argnums=0)
def _pool(space: Any, key: PRNGKey, found: Population, best: Population) -> Int[Array, "pool genes"]:
    """What the inner search found, its mutants and those of the front, and a few architectures from anywhere."""
    parents = jnp.concatenate([found, best])
    near, far, anywhere = jax.random.split(key, 3)
    several = sum(count > 1 for count in space.counts)
    rows = jnp.resize(parents, (POOL // 2, parents.shape[1]))
    mutants = [space.mutate(near, rows, 1.5 / several), space.mutate(far, rows, 4 / several)]
    return jnp.concatenate([found, *mutants, space.sample_raw(anywhere, POOL // 8)])


def _front(state: Measured) -> Float[Array, "front obj"]:
    """The measured front, padded with NaN; thinned where it is longer."""
    rows = np.unique(state.objectives[non_dominated_exact(state.objectives)], axis=0)
    if len(rows) > FRONT:
        rows = rows[np.linspace(0, len(rows) - 1, FRONT).astype(int)]
    return jnp.asarray(np.pad(rows.astype(np.float32), ((0, FRONT - len(rows)), (0, 0)), constant_values=np.nan))


@partial(jax.jit, static_argnums=4)
def _outlook(
    means: Values,
    deviations: Values,
    front: Float[Array, "front obj"],
    reference: Float[Array, " obj"],
    limits: tuple[tuple[float, float], ...],
) -> tuple[Float[Array, " pool"], Float[Array, " pool"]]:
    """The probability that each candidate keeps the constraints, and what else speaks for it: how near the front it is."""
    feasible = jnp.ones(len(means), jnp.float32)
    for mean, deviation, (low, high) in zip(means.T, deviations.T, limits, strict=True):
        safe = jnp.maximum(deviation, 1e-30)
        likely = norm.cdf((high - mean) / safe) - norm.cdf((low - mean) / safe)
        feasible *= jnp.where(deviation > 0, likely, ((mean >= low) & (mean <= high)).astype(jnp.float32))
    goals = means[:, : front.shape[1]]
    unit = jnp.maximum(reference - jnp.nanmin(front, axis=0, initial=jnp.inf, where=~jnp.isnan(front)), 1e-12)
    behind = ((goals[:, None] - front[None]) / unit).max(2)
    behind = jnp.nanmin(jnp.where(jnp.isnan(behind), jnp.inf, behind), axis=1)
    behind = jnp.where(jnp.isfinite(behind), jnp.maximum(behind, 0), 0)
    return feasible, -(10 * jnp.asarray(violations(means, limits)) + behind)
