"""Greedy expected hypervolume improvement on predictions: small batches, for the fewest evaluations.

The start is spread over an exact cost, extremes included. Each step then fits a predictor to every objective that is not
computed, collects candidates (a search on predictions that starts from the front, or all architectures of a small space),
and selects the batch with the greatest expected gain in hypervolume.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated_exact, violations
from nasjax.space import SearchSpace, duplicates
from nasjax.tactics.base import (
    MAX_COMBINATIONS,
    Measured,
    Problem,
    Values,
    constraint_violations,
    functions_first,
    initial_batch,
    padded_length,
    unmeasured,
)
from nasjax.tactics.improvement import choose
from nasjax.tactics.predicting import (
    Models,
    best_measured,
    fit_predictors,
    prediction_function,
    scoring_function,
    with_prior,
)
from nasjax.types import Mask, Population, PRNGKey

MAX_FRONT_ROWS = 128
"""Rows to which the front is padded or thinned, so that nothing recompiles as it grows."""

MAX_ENUMERATED = 20_000
"""Spaces with at most this many architectures are predicted completely instead of searched."""

COMPLETE_ROWS, POOL_PART = 256, 2048
"""Beyond so many measurements, a step considers only so many architectures of a small space, in turn: each costs more."""

GROWN_BATCH = 40
"""Batches double with each doubling of the measurements beyond `COMPLETE_ROWS`, up to so many architectures."""

POOL_SIZE = 1024
"""Number of mutants among the candidates from which the batch is selected."""


@dataclass(frozen=True)
class Ehvi:
    """Expected hypervolume improvement (see the module).

    `start` architectures are measured first (twice as many if no objective is exact), then `batch` per step
    (`batch_after`). Below `greedy` measurements candidates are selected by predicted means alone; beyond, half of each batch
    also takes the predicted uncertainty into account. The inner search runs for `generations`. Raises ConfigError for
    invalid settings.
    """

    start: int = 10
    batch: int = 5
    generations: int = 100
    greedy: int = 100

    def __post_init__(self):
        for name in ("start", "batch", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def batch_after(self, measured: int) -> int:
        """How many architectures the next step measures: as steps cost more, they become fewer."""
        return max(self.batch, min(self.batch * (padded_length(measured) // COMPLETE_ROWS), GROWN_BATCH))

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.empty(key, with_prior(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        if np.isfinite(state.values).all(1).sum() < min(self.start, 4):
            if state.problem.warm is not None:
                return initial_batch(state, self.start), state
            exact = any(cost is not None for cost in state.problem.costs[: len(state.problem.reference)])
            number = self.start if exact else 2 * self.start
            start = functions_first(state.problem, spread_over_cost(state.problem, state.step_key(), number))
            return unmeasured(state, start, number), state
        models, state = fit_predictors(state)
        number = self.batch_after(len(state.archs))
        return unmeasured(state, self._select_batch(state, models, number), number), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)

    def _select_batch(self, state: Measured, models: Models, number: int) -> Population:
        """The next `number` architectures, best first."""
        problem, key = state.problem, state.step_key()
        goals = len(problem.reference)
        everything = _all_candidates(problem)
        pool = self._search_candidates(state, models, key) if everything is None else everything
        if problem.repair is not None:
            pool = jnp.asarray(problem.repair(np.asarray(pool)))
        known = np.full((padded_length(len(state.archs)), pool.shape[1]), -1, np.int32)
        known[: len(state.archs)] = state.archs
        seen = _known_rows(known, pool)
        if everything is not None and len(state.archs) > COMPLETE_ROWS:
            part = _part_of_pool(state, seen)
            pool, seen = pool[part], seen[part]
        means, deviations = prediction_function(problem)(models, pool)
        front = _padded_front(state)
        reference = jnp.asarray(problem.reference, jnp.float32)
        feasible, fallback = _feasibility_and_fallback(means, deviations, front, reference, problem.limits)
        # Half of the batch is chosen by the means alone, which work better while predictions improve quickly; the other half
        # by expected improvement, once there are enough measurements to trust the deviations.
        halves = ((-(-number // 2), 0.0), (number // 2, float(len(state.archs) >= self.greedy)))
        rows: list[int] = []
        for half, scale in halves:
            if half:
                doubt = jnp.float32(scale) * deviations[:, :goals]
                new = choose(front, means[:, :goals], doubt, feasible, seen, reference, fallback, half)
                front, seen = jnp.concatenate([front, means[new, :goals]]), jnp.asarray(seen).at[new].set(True)
                rows += np.asarray(new).tolist()
        return np.asarray(pool)[rows]

    def _search_candidates(self, state: Measured, models: Models, key: PRNGKey) -> Int[Array, "pool genes"]:
        """Candidates from an inner search on predictions that starts from the front and its mutants."""
        problem, space = state.problem, state.problem.space
        inner, draw, near = jax.random.split(key, 3)
        # Repeated rows give one shape, and so one compilation, however few there are.
        known = np.resize(best_measured(state), (MAX_FRONT_ROWS, len(space.genes)))
        start = _inner_start(space, near, known, -(-problem.algorithm.population // 2))
        score, goals = scoring_function(problem), len(problem.reference)
        found = evolve(problem.algorithm, space, score, models, inner, self.generations, start, goals)
        return _candidate_pool(space, draw, found.archs, jnp.asarray(known))


def spread_over_cost(problem: Problem, key: PRNGKey, number: int) -> Population:
    """Architectures evenly spread over the first exact objective, from the least to the reference, extremes included.

    Without an exact objective they are not spread. Architectures that break constraints on exact costs are used last.
    """
    space, goals = problem.space, len(problem.reference)
    archs = _graded_architectures(space, key, 64 * number)
    excess = constraint_violations(problem, archs)
    archs = archs[np.argsort(excess, kind="stable")][: max(int((excess == 0).sum()), number)]
    first = next((i for i, cost in enumerate(problem.costs[:goals]) if cost is not None), None)
    if first is None:
        return archs
    costs = np.asarray(problem.costs[first](jnp.asarray(archs)))  # type: ignore[misc]
    wanted = np.linspace(costs.min(), max(min(costs.max(), problem.reference[first]), costs.min()), number)
    return archs[[int(np.abs(costs - value).argmin()) for value in wanted]]


def _graded_architectures(space: SearchSpace, key: PRNGKey, number: int) -> Int[np.ndarray, "pop genes"]:
    """The smallest and the largest architecture, and random ones from small to large: each row draws its own mean size.

    Unordered genes are uniformly random.
    """
    lean, draw, other = jax.random.split(key, 3)
    counts = np.array(space.counts, np.int32)
    # Binomial levels, as sums of coins: JAX's own sampler takes seconds to compile.
    coins = jax.random.uniform(draw, (counts.max() - 1, number, len(counts))) < jax.random.uniform(lean, (number, 1))
    levels = (np.asarray(coins) & (np.arange(counts.max() - 1)[:, None, None] < counts - 1)).sum(0)
    ordered = np.array([gene.ordered for gene in space.genes])
    raw = np.where(ordered, levels, np.asarray(space.sample_raw(other, number)))
    ends = np.stack([space.smallest(), space.largest()]) if ordered.all() else raw[:0]
    return np.concatenate([ends, space.canonical(raw.astype(np.int32))])


@lru_cache(maxsize=4)
def _all_candidates(problem: Problem) -> Int[Array, "pool genes"] | None:
    """All architectures that can be measured, if there are few enough; None otherwise."""
    if problem.rows is not None and len(problem.rows) <= MAX_ENUMERATED:
        return jnp.asarray(problem.rows)
    if problem.rows is None and problem.space.size <= MAX_ENUMERATED and math.prod(problem.space.counts) <= MAX_COMBINATIONS:
        return jnp.asarray(problem.space.all_architectures())
    return None


def _part_of_pool(state: Measured, seen: Bool[Array | np.ndarray, " pool"]) -> Int[np.ndarray, " part"]:
    """The rows of the pool that this step considers: at most `POOL_PART`, in turn all that are not `seen`."""
    size = min(POOL_PART, len(seen))
    order = np.asarray(jax.random.permutation(state.key, len(seen)))
    order = order[np.argsort(np.asarray(seen)[order], kind="stable")]
    unseen = len(seen) - int(np.asarray(seen).sum())
    return order[(int(state.step) * size + np.arange(size)) % max(unseen, size)]


@jax.jit
def _known_rows(known: Population, pool: Population) -> Mask:
    """Which rows of the pool are known, or equal an earlier row."""
    return duplicates(jnp.concatenate([known, pool]))[len(known) :]


@partial(jax.jit, static_argnums=(0, 3))
def _inner_start(space: SearchSpace, key: PRNGKey, best: Population, half: int) -> Int[Array, "start genes"]:
    """Where the inner search starts: the `half` best, and as many mutants."""
    mutants = space.mutate(key, best, 2 / len(space.genes))
    return jnp.resize(jnp.concatenate([best[:half], mutants]), (2 * half, best.shape[1]))


@partial(jax.jit, static_argnums=0)
def _candidate_pool(space: SearchSpace, key: PRNGKey, found: Population, best: Population) -> Int[Array, "pool genes"]:
    """The architectures that the inner search found, mutants of them and of the front, and some random ones."""
    parents = jnp.concatenate([found, best])
    near, far, anywhere = jax.random.split(key, 3)
    several = sum(count > 1 for count in space.counts)
    rows = jnp.resize(parents, (POOL_SIZE // 2, parents.shape[1]))
    mutants = [space.mutate(near, rows, 1.5 / several), space.mutate(far, rows, 4 / several)]
    return jnp.concatenate([found, *mutants, space.sample_raw(anywhere, POOL_SIZE // 8)])


def _padded_front(state: Measured) -> Float[Array, "front obj"]:
    """The measured front, padded with NaN to `MAX_FRONT_ROWS`, or thinned to as many rows."""
    rows = np.unique(state.objectives[non_dominated_exact(state.objectives)], axis=0)
    if len(rows) > MAX_FRONT_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_FRONT_ROWS).astype(int)]
    return jnp.asarray(np.pad(rows.astype(np.float32), ((0, MAX_FRONT_ROWS - len(rows)), (0, 0)), constant_values=np.nan))


@partial(jax.jit, static_argnums=4)
def _feasibility_and_fallback(
    means: Values,
    deviations: Values,
    front: Float[Array, "front obj"],
    reference: Float[Array, " obj"],
    limits: tuple[tuple[float, float], ...],
) -> tuple[Float[Array, " pool"], Float[Array, " pool"]]:
    """Per candidate the probability that it keeps the constraints, and a fallback score for when no gain is expected.

    The fallback, at most 0, is larger for less violation and for candidates closer to the front.
    """
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
