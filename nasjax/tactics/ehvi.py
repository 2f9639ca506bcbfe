"""Greedy expected hypervolume improvement on Gaussian-process predictions: few validations, each where it adds most.

A start spread over the exact cost, both extremes included; then, again and again: a predictor is fitted to every objective
that is not computed, an algorithm searches the predictions from the front on, and of all that it finds the batch is taken
that promises to add most to the hypervolume (Emmerich, Deutz and Klinkenberg 2011, Monte Carlo, one after the other).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from nasjax.algorithms.evolve import evolve
from nasjax.pareto import hypervolume_improvement, non_dominated_exact
from nasjax.predictors import Inputs, Predictor
from nasjax.space import duplicates
from nasjax.tactics.problem import CostFunction, Measured, Problem, fresh, padded
from nasjax.types import Objectives, Population, PRNGKey

SAMPLES = {1: 32, 2: 32, 3: 8}
"""Draws of an uncertain candidate, by number of objectives (more objectives: its mean alone)."""

FRONT = 128
"""Rows that the front is padded to: nothing compiles again as it grows; the largest gaps are kept where it is longer."""


@dataclass(frozen=True)
class Ehvi:
    """`start` are measured first, `batch` at a time then, from `pool` candidates; the mean alone decides below `greedy`."""

    start: int = 20
    batch: int = 10
    pool: int = 1024
    generations: int = 100
    greedy: int = 100

    def __post_init__(self):
        for name in ("start", "batch", "pool", "generations"):
            if getattr(self, name) < 1:
                raise ValueError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.nothing(key, problem)

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        key = state.key_of_step()
        if np.isfinite(state.objectives).all(1).sum() < min(self.start, 4):
            return fresh(state, spread(state.problem, key, self.start), self.start), state
        return fresh(state, self._promising(state, key), self.batch), state

    def tell(self, state: Measured, archs: Population, objectives: Objectives) -> Measured:
        return state.add(archs, objectives)

    def _promising(self, state: Measured, key: PRNGKey) -> Population:
        problem, space = state.problem, state.problem.space
        inner, draw, near = jax.random.split(key, 3)
        archs, values = padded(state)
        counts = np.asarray(np.isfinite(values).all(1))
        models = tuple(
            None if cost is not None else problem.predictor.fit(problem.inputs, archs, values[:, i], counts)
            for i, cost in enumerate(problem.costs)
        )
        best = state.archs[non_dominated_exact(state.objectives)]
        start = np.resize(np.concatenate([best, space.mutate(near, best, 2 / len(space.genes))]),
                          (problem.algorithm.population, archs.shape[1]))  # fmt: skip
        mean = _predicted(problem.inputs, problem.costs, problem.predictor)  # type: ignore[arg-type]
        found = evolve(problem.algorithm, space, _means(mean), models, inner, self.generations, start, len(problem.costs))
        pool = _pool(space, draw, found.archs, jnp.asarray(np.resize(best, (FRONT, archs.shape[1]))), self.pool)
        if problem.repair is not None:
            pool = jnp.asarray(problem.repair(np.asarray(pool)))
        means, deviations = mean(models, pool)
        seen = duplicates(jnp.concatenate([jnp.asarray(archs), pool]))[len(archs) :]
        draws = 1 if len(state.archs) < self.greedy else SAMPLES.get(len(problem.costs), 1)
        chosen = _greedy(_front(state), means, deviations, seen, jnp.asarray(problem.reference, jnp.float32),
                         jax.random.fold_in(draw, 1), self.batch, draws)  # fmt: skip
        return np.asarray(pool)[np.asarray(chosen)]


def spread(problem: Problem, key: PRNGKey, number: int) -> Population:
    """The smallest, the largest, and others evenly spread over the first exact cost (over nothing where there is none)."""
    space = problem.space
    archs = np.asarray(space.sample_raw(key, 64 * number))
    ends = np.stack([space.smallest(), space.largest()])
    cost = next((cost for cost in problem.costs if cost is not None), None)
    if cost is None:
        return np.concatenate([ends, archs])[:number] if all(g.ordered for g in space.genes) else archs[:number]
    costs = np.asarray(cost(jnp.asarray(archs)))
    low, high = np.asarray(cost(jnp.asarray(ends)))
    wanted = np.linspace(low, high, number)[1:-1]
    nearest = [int(np.abs(costs - value).argmin()) for value in wanted]
    return np.concatenate([ends, archs[nearest]])[:number]


Predicted = Callable[[Any, Population], tuple[Objectives, Objectives]]


@lru_cache(maxsize=8)
def _predicted(inputs: Inputs, costs: tuple[CostFunction | None, ...], predictor: Predictor) -> Predicted:
    """Mean and deviation of every objective: predicted, or computed and certain. The same function for equal arguments."""

    @jax.jit
    def predicted(models: tuple[Any, ...], archs: Population) -> tuple[Objectives, Objectives]:
        pairs = [
            predictor.predict(inputs, model, archs) if cost is None else (cost(archs), jnp.zeros(len(archs), jnp.float32))
            for cost, model in zip(costs, models, strict=True)
        ]
        return jnp.stack([mean for mean, _ in pairs], 1), jnp.stack([deviation for _, deviation in pairs], 1)

    return predicted


@lru_cache(maxsize=8)
def _means(predicted: Predicted) -> Callable[[Any, Population], Objectives]:
    return jax.jit(lambda models, archs: predicted(models, archs)[0])


@partial(jax.jit, static_argnums=(0, 4))
def _pool(space: Any, key: PRNGKey, found: Population, best: Population, number: int) -> Int[Array, "pool genes"]:
    """What the inner search found, its mutants and those of the front, and a few architectures from anywhere."""
    parents = jnp.concatenate([found, best])
    near, far, anywhere = jax.random.split(key, 3)
    several = sum(count > 1 for count in space.counts)
    rows = jnp.resize(parents, (number // 2, parents.shape[1]))
    mutants = [space.mutate(near, rows, 1.5 / several), space.mutate(far, rows, 4 / several)]
    return jnp.concatenate([found, *mutants, space.sample_raw(anywhere, max(number // 8, 1))])


def _front(state: Measured) -> Float[np.ndarray, "front obj"]:
    values = state.objectives[non_dominated_exact(state.objectives)]
    values = np.unique(values, axis=0)
    if len(values) > FRONT:
        values = values[np.linspace(0, len(values) - 1, FRONT).astype(int)]
    front = np.full((FRONT, values.shape[1]), np.nan, np.float32)
    front[: len(values)] = values
    return front


@partial(jax.jit, static_argnums=(6, 7))
def _greedy(
    front: Float[Array | np.ndarray, "front obj"],
    means: Objectives,
    deviations: Objectives,
    seen: Any,
    reference: Float[Array, " obj"],
    key: PRNGKey,
    batch: int,
    draws: int,
) -> Int[Array, " batch"]:
    """Candidates, one after the other, that add most in expectation, where those before them turn out as predicted."""
    pool, objectives = means.shape
    # The same quantiles for every candidate, in an order of its own for every objective.
    levels = norm.ppf((jnp.arange(draws) + 0.5) / draws)
    orders = [jax.random.permutation(jax.random.fold_in(key, i), levels) for i in range(objectives)]
    samples = means[:, None] + deviations[:, None] * jnp.stack(orders, 1)[None]

    def choose(carry, _):
        front, seen = carry
        gains = hypervolume_improvement(front, samples.reshape(-1, objectives), reference).reshape(pool, draws).mean(1)
        # Where nothing more is to be gained, what is nearest to the front in its own worst objective.
        best = jnp.argmax(jnp.where(seen, -1.0, gains))
        front = jnp.concatenate([front[1:], means[best][None]])
        return (front, seen.at[best].set(True)), best

    room = jnp.concatenate([jnp.full((batch, objectives), jnp.nan), jnp.asarray(front)])
    return jax.lax.scan(choose, (room, jnp.asarray(seen)), length=batch)[1]
