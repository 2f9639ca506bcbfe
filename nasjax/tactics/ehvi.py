"""Greedy expected hypervolume improvement on predictions: small batches, for the fewest evaluations.

The start is spread over an exact cost, extremes included. Each step then fits a predictor to every objective that is not
computed, collects candidates (a search on predictions that starts from the front, or all architectures of a small space),
and selects the batch with the greatest expected gain in hypervolume, from a reference point that follows the front.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated_exact, violations
from nasjax.space import SearchSpace
from nasjax.tactics.base import (
    MAX_COMBINATIONS,
    Measured,
    Problem,
    Values,
    constraint_violations,
    functions_first,
    padded_length,
    unmeasured,
)
from nasjax.tactics.improvement import choose, lead_over_front, positive
from nasjax.tactics.predicting import (
    Candidates,
    Models,
    best_measured,
    fit_predictors,
    prediction,
    scoring_function,
)
from nasjax.tactics.priors import read_by_predictors, with_prior
from nasjax.types import Population, PRNGKey

MAX_FRONT_ROWS = 128
"""Rows to which the front is padded or thinned, so that nothing recompiles as it grows."""

MAX_ENUMERATED = 20_000
"""Spaces with at most this many architectures are predicted completely instead of searched."""

LEAST_MARGIN, MARGIN = 0.5, 0.005
"""How far behind the front gains are measured from, as a share of its range: at least, and for each measurement made. With
less, searches were slow to extend their front; with more than its range at first, slow between its ends."""

MORE_MARGIN = 0.2
"""By which share the margin grows, before `greedy` measurements, for each one since the last on the front: where nothing is
left to gain in a part of the range, a search goes on beyond it."""

TURN_EARLY, TURN = 5, 2
"""One of so many architectures is chosen with regard to the deviations, before `greedy` measurements (at most) and after."""

REST = 3
"""One step of so many reads nothing of a warm start's search, which may mislead for long: it knows much of its own front and
little of where the new one may be."""

SMALL_BATCHES, LARGEST_BATCH = 512, 40
"""Beyond so many measurements batches double with each doubling of them, up to so many architectures."""

POOL_SIZE = 1024
"""Number of mutants among the candidates from which the batch is selected."""

SHORTLIST = 1024
"""Candidates nearest to the front by predicted means, or farthest beyond it, whose deviations and gains are computed."""


@dataclass(frozen=True)
class Ehvi:
    """Expected hypervolume improvement (see the module). Raises ConfigError for invalid settings.

    Attributes:
      start: how many architectures are measured first.
      batch: the least number of architectures measured per step; it grows beyond 512 measurements, as steps cost more.
      generations: how long the inner search on predictions runs.
      greedy: from so many measurements on, half of each batch also takes the predicted uncertainty into account; before,
        at most one in five does.
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
        return max(self.batch, min(self.batch * (padded_length(measured) // SMALL_BATCHES), LARGEST_BATCH))

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.empty(key, with_prior(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        if np.isfinite(state.values).all(1).sum() < min(self.start, 4):
            return unmeasured(state, self._start(state), self.start), state
        number, rest = self.batch_after(len(state.archs)), int(state.step) % REST == 0
        models, fitted = fit_predictors(state, rest)
        batch = self._select_batch(replace(state, problem=read_by_predictors(state, rest)), models, number)
        return unmeasured(state, batch, number), replace(state, fits=fitted.fits)

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)

    def _start(self, state: Measured) -> Population:
        """What is measured first: two thirds are the best of a warm start, if any, the others are spread over all sizes.

        An earlier search of other objectives may have been nowhere near the new front. One that measured none of the
        objectives is a prior alone: what it found best is no front of the new ones.
        """
        problem, best = state.problem, state.archs[:0]
        if problem.warm is not None and not len(state.archs):
            measured = [i for i in range(len(problem.reference)) if problem.costs[i] is None]
            if np.isfinite(problem.warm.values[:, measured]).any():
                best = np.asarray(functions_first(problem, problem.warm.archs))[: -(-2 * self.start // 3)]
        spread = spread_over_cost(problem, state.step_key(), max(self.start - len(best), 1))
        return np.concatenate([best, functions_first(problem, spread)])

    def _select_batch(self, state: Measured, models: Models, number: int) -> Population:
        """The next `number` architectures, best first."""
        problem, goals, predicted = state.problem, len(state.problem.reference), prediction(state.problem)
        pool = _all_candidates(problem)
        if pool is None:
            pool = predicted.describe(models.prior, self._search_candidates(state, models, state.step_key()))
        front = _padded_front(state, number)
        on_front, early = non_dominated_exact(state.objectives), len(state.archs) < self.greedy
        margin = max(LEAST_MARGIN, MARGIN * len(state.archs))
        if early:
            margin *= 1 + MORE_MARGIN * _since_last(on_front)
        reference = aim(state.objectives, problem.reference, margin).astype(np.float32)
        seen = _known_or_repeated(state.archs, np.asarray(pool.archs))
        few, seen, fallback = _shortlist(pool, predicted.means(models, pool), seen, front, reference, problem.limits)
        means, deviations = (np.asarray(part) for part in predicted.normal(models, few))
        feasible = _feasible(means, deviations, problem.limits)
        seen = np.array(seen)  # On the host, as the front: rows are set without a program; a copy, since JAX's is read-only.
        rows: list[int] = []

        def take(part: int, doubt: Values, reference: Float[np.ndarray, " obj"], fallback: Float[Array, " few"]) -> None:
            new = choose(front, means[:, :goals], doubt, feasible, seen, reference, fallback, part, number)
            new = np.asarray(new)[:part]
            # In the place of rows that only pad the front.
            front[len(rows) : len(rows) + len(new)] = means[new, :goals]
            seen[new] = True
            rows.extend(new.tolist())

        # Most of the batch is chosen by the means alone, which work better while predictions improve quickly; the rest by
        # expected improvement, at first in the whole range, so that a search does not stay where it is.
        unsure, doubt = self._unsure(on_front, number), deviations[:, :goals]
        if number > unsure:
            take(number - unsure, np.zeros_like(doubt), reference, fallback)
        if unsure:
            whole = problem.reference.astype(np.float32) if early else reference
            take(unsure, doubt, whole, _within_deviations(front, means, doubt, whole, problem.limits))
        return np.asarray(few.archs)[rows]

    def _unsure(self, on_front: Bool[np.ndarray, " measured"], number: int) -> int:
        """How many of the next `number` architectures are chosen with regard to the deviations.

        One in `TURN`; before `greedy` measurements one in `TURN_EARLY`, while most of the last ones missed the front.
        """
        measured = len(on_front)
        if measured >= self.greedy:
            return (measured + number) // TURN - measured // TURN
        last = on_front[self.start :][-max(number, TURN_EARLY) :]
        if not len(last) or 2 * last.sum() > len(last):
            return 0
        return (measured + number) // TURN_EARLY - measured // TURN_EARLY

    def _search_candidates(self, state: Measured, models: Models, key: PRNGKey) -> Int[Array, "pool genes"]:
        """Candidates from an inner search on predictions that starts from the front and its mutants."""
        problem, space = state.problem, state.problem.space
        inner, draw, near = jax.random.split(key, 3)
        # Repeated rows give one shape, and so one compilation, however few there are.
        known = np.resize(best_measured(state), (MAX_FRONT_ROWS, len(space.genes)))
        start = _inner_start(space, near, known, -(-problem.algorithm.population // 2))
        score, goals = scoring_function(problem), len(problem.reference)
        found = evolve(problem.algorithm, space, score, models, inner, self.generations, start, goals)
        pool = _candidate_pool(space, draw, found.archs, jnp.asarray(known))
        return pool if problem.repair is None else jnp.asarray(problem.repair(np.asarray(pool)))


def _since_last(on_front: Bool[np.ndarray, " measured"]) -> int:
    """How many measurements were made since the last one on the front."""
    hits = np.flatnonzero(on_front)
    return len(on_front) - 1 - int(hits[-1]) if len(hits) else 0


def aim(values: Values, reference: Float[np.ndarray, " obj"], margin: float) -> Float[np.ndarray, " obj"]:
    """The reference point that gains are measured from: the front's worst values and a margin, at most `reference`.

    `margin` is a share of the front's range, as far as that is within `reference`. `values` may have NaN. `reference` itself
    with fewer than two networks on the front, with none within `reference`, and for objectives in which all are equal.
    Far points of reference let the extremes of a front outweigh its middle (Ishibuchi et al. 2018; BoTorch infers it alike).
    """
    front = values[non_dominated_exact(values)]
    if len(front) < 2 or not (front < reference).all(1).any():
        return reference
    front = np.minimum(front, reference)
    ranges = np.ptp(front, axis=0)
    return np.where(ranges > 0, np.minimum(reference, front.max(0) + margin * ranges), reference)


def spread_over_cost(problem: Problem, key: PRNGKey, number: int) -> Population:
    """Architectures evenly spread over the first exact objective, from the least to the reference, extremes included.

    Without an exact objective they are not spread. Architectures that break constraints on exact costs are used last.
    """
    space, goals = problem.space, len(problem.reference)
    archs = np.asarray(_graded_architectures(space, key, 64 * number))
    excess = constraint_violations(problem, archs)
    archs = archs[np.argsort(excess, kind="stable")][: max(int((excess == 0).sum()), number)]
    first = next((i for i, cost in enumerate(problem.costs[:goals]) if cost is not None), None)
    if first is None:
        return archs
    costs = np.asarray(jax.jit(problem.costs[first])(archs))  # type: ignore[arg-type]
    wanted = np.linspace(costs.min(), max(min(costs.max(), problem.reference[first]), costs.min()), number)
    return archs[[int(np.abs(costs - value).argmin()) for value in wanted]]


@partial(jax.jit, static_argnums=(0, 2))
def _graded_architectures(space: SearchSpace, key: PRNGKey, number: int) -> Int[Array, "pop genes"]:
    """The smallest and the largest architecture, and random ones whose mean sizes are spread evenly.

    Unordered genes are uniformly random.
    """
    lean, draw, other = jax.random.split(key, 3)
    counts = np.array(space.counts, np.int32)
    # Steps of the golden ratio spread any number of rows evenly.
    steps = np.float32((math.sqrt(5) - 1) / 2) * np.arange(number, dtype=np.float32)
    sizes = (jax.random.uniform(lean) + steps[:, None]) % 1
    # Binomial levels, as sums of coins: JAX's own sampler takes seconds to compile.
    coins = jax.random.uniform(draw, (counts.max() - 1, number, len(counts))) < sizes
    levels = (coins & (np.arange(counts.max() - 1)[:, None, None] < counts - 1)).sum(0, dtype=jnp.int32)
    ordered = np.array([gene.ordered for gene in space.genes])
    raw = jnp.where(ordered, levels, space.sample_raw(other, number))
    ends = [space.smallest(), space.largest()] if ordered.all() else []
    return jnp.concatenate([np.array(ends, np.int32).reshape(-1, len(counts)), space.canonical(raw)])


@lru_cache(maxsize=4)
def _all_candidates(problem: Problem) -> Candidates | None:
    """All architectures that can be measured, if there are few enough; None otherwise."""
    if problem.rows is not None:
        archs = problem.rows if len(problem.rows) <= MAX_ENUMERATED else None
    else:
        few = problem.space.size <= MAX_ENUMERATED and math.prod(problem.space.counts) <= MAX_COMBINATIONS
        archs = problem.space.all_architectures() if few else None
    return None if archs is None else prediction(problem).describe(problem.inputs.prior, jnp.asarray(archs))


def _known_or_repeated(known: Population, archs: Population) -> Bool[np.ndarray, " pop"]:
    """Which rows of `archs` are known, or equal an earlier row."""
    every = np.ascontiguousarray(np.concatenate([known, archs]), np.int32)
    rows = every.view(np.dtype((np.void, every.itemsize * every.shape[1]))).ravel()
    found = np.ones(len(rows), bool)
    found[np.unique(rows, return_index=True)[1]] = False
    return found[len(known) :]


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


def _padded_front(state: Measured, number: int) -> Float[np.ndarray, "rows obj"]:
    """The measured front, thinned to `MAX_FRONT_ROWS`, behind rows of NaN: at least `number` of them."""
    rows = np.unique(state.objectives[non_dominated_exact(state.objectives)], axis=0)
    if len(rows) > MAX_FRONT_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_FRONT_ROWS).astype(int)]
    padding = number + MAX_FRONT_ROWS - len(rows)
    return np.pad(rows.astype(np.float32), ((padding, 0), (0, 0)), constant_values=np.nan)


@partial(jax.jit, static_argnums=5)
def _shortlist(
    pool: Candidates,
    means: Values,
    seen: Bool[Array, " pool"],
    front: Float[Array, "rows obj"],
    reference: Float[Array, " obj"],
    limits: tuple[tuple[float, float], ...],
) -> tuple[Candidates, Bool[Array, " few"], Float[Array, " few"]]:
    """The `SHORTLIST` best of the pool, whether each was `seen`, and a fallback score for when no gain is expected.

    They are ranked by violation, then by how far they are beyond the front or behind it; of this the fallback is what is
    below 0.
    """
    front, points = _bounded(front, reference), jnp.asarray(means)[:, : front.shape[1]]
    ranges = reference - jnp.minimum(front.min(0), points.min(0)) + 1e-12
    lead = lead_over_front(front, points, reference, jnp.broadcast_to(ranges, points.shape))
    score = lead - 10 * jnp.asarray(violations(means, limits))
    few = lax.top_k(jnp.where(seen, -jnp.inf, score), min(SHORTLIST, len(means)))[1]
    return jax.tree.map(lambda rows: rows[few], pool), seen[few], jnp.minimum(score[few], 0)


@partial(jax.jit, static_argnums=4)
def _within_deviations(
    front: Float[Array, "rows obj"],
    means: Values,
    deviations: Float[Array, "few obj"],
    reference: Float[Array, " obj"],
    limits: tuple[tuple[float, float], ...],
) -> Float[Array, " few"]:
    """A fallback score for when expected gains underflow: the fewer deviations a candidate is behind the front, the better.

    The logarithm of its gain falls with the square of these. From -1 to 0, less what constraints are violated by.
    """
    points = jnp.asarray(means)[:, : front.shape[1]]
    lead = lead_over_front(_bounded(front, reference), points, reference, positive(points, deviations))
    behind = jnp.minimum(lead, 0)
    return behind / (1 - behind) - 10 * jnp.asarray(violations(means, limits))


def _bounded(front: Float[Array, "rows obj"], reference: Float[Array, " obj"]) -> Float[Array, "rows obj"]:
    """The front with the reference in the place of rows of NaN, and of what is beyond it."""
    return jnp.minimum(jnp.where(jnp.isnan(front), reference[None], front), reference[None])


@partial(jax.jit, static_argnums=2)
def _feasible(means: Values, deviations: Values, limits: tuple[tuple[float, float], ...]) -> Float[Array, " pop"]:
    """The probability that each architecture keeps the constraints."""
    feasible = jnp.ones(len(means), jnp.float32)
    for mean, deviation, (low, high) in zip(means.T, deviations.T, limits, strict=True):
        safe = jnp.maximum(deviation, 1e-30)
        likely = norm.cdf((high - mean) / safe) - norm.cdf((low - mean) / safe)
        feasible *= jnp.where(deviation > 0, likely, ((mean >= low) & (mean <= high)).astype(jnp.float32))
    return feasible
