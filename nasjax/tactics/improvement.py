"""Expected hypervolume improvement: greedy selection of a batch of candidates.

Objective values are independent normal variables. After each choice, the chosen candidate counts as measured at its mean.
One and two objectives are exact (Emmerich, Deutz and Klinkenberg 2011). Three or more are approximated by the lengths of
rays from a candidate to the dominated region in fixed directions (Shang, Ishibuchi and Ni 2020), averaged over samples of
the candidate's values.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from nasjax.sorting import falses_first
from nasjax.types import Objectives

RAYS, SAMPLES = 64, 8
"""Number of rays, and of samples of a candidate's values, for three or more objectives."""


Improvement = tuple[Callable[[Any], Float[Array, " pool"]], Callable[[Any, Int[Array, ""]], Any], Any]
"""`gain(state)` of each candidate, `add(state, row)` after a choice, and the initial state."""


@partial(jax.jit, static_argnums=8)
def choose(
    front: Float[Array, "front obj"],
    means: Objectives,
    deviations: Objectives,
    feasible: Float[Array, " pool"],
    excluded: Bool[Array, " pool"],
    reference: Float[Array, " obj"],
    fallback: Float[Array, " pool"],
    number: int | Int[Array, ""],
    batch: int,
) -> Int[Array, " batch"]:
    """The first `number` rows of the pool in the order of selection, then -1 up to the length `batch`.

    `feasible` is each candidate's probability of keeping the constraints; invalid rows of `front` are NaN. If no candidate
    promises a gain, the one with the greatest `fallback` is selected; `excluded` rows come last.
    """
    front = jnp.minimum(jnp.where(jnp.isnan(front).any(1, keepdims=True), reference[None], front), reference[None])
    # Rows on the reference contribute nothing: they are placeholders for the candidates to be chosen.
    front = jnp.concatenate([front, jnp.broadcast_to(reference, (batch, len(reference)))])
    deviations = positive(means, deviations)
    improvement = _EXACT.get(means.shape[1], _ray_approximation)

    gain, add, state = improvement(front, means, deviations, reference)

    def take(i, carry):
        state, excluded, rows = carry
        gains = gain(state) * feasible
        worth = jnp.where(gains > 0, gains, jnp.minimum(fallback, 0) - 1e-30)
        best = jnp.argmax(jnp.where(excluded, -jnp.inf, worth))
        return add(state, best), excluded.at[best].set(True), rows.at[i].set(best)

    return lax.fori_loop(0, number, take, (state, excluded, jnp.full(batch, -1)))[2]


def positive(means: Objectives, deviations: Objectives) -> Float[Array, "pool obj"]:
    """The deviations, at least what float32 resolves of the means."""
    return jnp.maximum(deviations, 1e-6 * jnp.abs(means) + 1e-12)


def _expected_improvement(
    level: Float[Array, "..."], mean: Float[Array, "..."], deviation: Float[Array, "..."]
) -> Float[Array, "..."]:
    """E[max(level - Y, 0)] of a normal variable Y."""
    z = (level - mean) / deviation
    return jnp.maximum((level - mean) * norm.cdf(z) + deviation * norm.pdf(z), 0)


def lead_over_front(
    front: Float[Array, "front obj"],
    points: Float[Array, "pool obj"],
    reference: Float[Array, " obj"],
    units: Float[Array, "pool obj"],
) -> Float[Array, " pool"]:
    """By how many of its units each point can worsen in all objectives until it is dominated; at most 0 if it is already."""
    rows, number = _inside_first(front, reference)
    edge = ((reference[None] - points) / units).min(1)
    return lax.fori_loop(0, number, lambda i, lead: jnp.minimum(lead, ((rows[i][None] - points) / units).max(1)), edge)


def _inside_first(
    front: Float[Array, "front obj"], reference: Float[Array, " obj"]
) -> tuple[Float[Array, "front obj"], Int[Array, ""]]:
    """The rows better than the reference in all objectives, then the others, which bound nothing; how many the first are."""
    inside = (front < reference[None]).all(1)
    return front[falses_first(~inside)], inside.sum()


def _one_objective(
    front: Float[Array, "front obj"],
    means: Objectives,
    deviations: Objectives,
    reference: Float[Array, " obj"],
) -> Improvement:
    """Exact improvement over the best value; the state is the best value."""

    def gain(best):
        return _expected_improvement(best, means[:, 0], deviations[:, 0])

    return gain, lambda best, row: jnp.minimum(best, means[row, 0]), jnp.minimum(front.min(), reference[0])


def _two_objectives(
    front: Float[Array, "front obj"],
    means: Objectives,
    deviations: Objectives,
    reference: Float[Array, " obj"],
) -> Improvement:
    """Exact improvement over a staircase front: a sum over its steps of expected width times expected height."""

    def gain(points):
        points = points[jnp.lexsort((points[:, 1], points[:, 0]))]
        edges = jnp.concatenate([points[:, 0], reference[:1]])
        steps = lax.cummin(jnp.concatenate([reference[1:], points[:, 1]]))
        widths = jnp.diff(_expected_improvement(edges[None], means[:, :1], deviations[:, :1]), axis=1, prepend=0.0)
        heights = _expected_improvement(steps[None], means[:, 1:], deviations[:, 1:])
        return (jnp.maximum(widths, 0) * heights).sum(1)

    def add(points, row):
        placeholder = jnp.argmax((points >= reference[None]).all(1))
        return points.at[placeholder].set(jnp.minimum(means[row], reference))

    return gain, add, front


def _ray_approximation(
    front: Float[Array, "front obj"],
    means: Objectives,
    deviations: Objectives,
    reference: Float[Array, " obj"],
) -> Improvement:
    """Approximate improvement: the state are ray lengths (pool, samples, rays), which every row of the front shortens."""
    objectives = means.shape[1]
    key = jax.random.key(0)
    directions = jnp.abs(jax.random.normal(key, (RAYS, objectives)))
    directions = jnp.maximum(directions / jnp.linalg.norm(directions, axis=1, keepdims=True), 1e-3)
    unit = reference - jnp.minimum(front.min(0), means.min(0)) + 1e-12
    levels = norm.ppf((jnp.arange(SAMPLES, dtype=jnp.float32) + 0.5) / SAMPLES)
    orders = jnp.stack([jax.random.permutation(jax.random.fold_in(key, i), levels) for i in range(objectives)], 1)
    points = (means[:, None] + deviations[:, None] * orders[None]) / unit

    def reach(row):
        """Ray lengths from every point to the region that `row` dominates."""
        return ((row / unit - points)[:, :, None] / directions[None, None]).max(-1)

    edge = ((reference / unit - points)[:, :, None] / directions[None, None]).min(-1)
    rows, number = _inside_first(front, reference)
    lengths = lax.fori_loop(0, number, lambda i, lengths: jnp.minimum(lengths, reach(rows[i])), edge)

    def gain(lengths):
        return (jnp.maximum(lengths, 0) ** objectives).mean((1, 2))

    return gain, lambda lengths, row: jnp.minimum(lengths, reach(means[row])), lengths


_EXACT = {1: _one_objective, 2: _two_objectives}
