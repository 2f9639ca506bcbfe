"""Expected hypervolume improvement of a batch: which candidates, one after the other, promise to add most.

Values are independent normal variables; those chosen count, for the next choice, as if they turned out at their mean. One
objective and two: exact (Emmerich, Deutz and Klinkenberg 2011). Three and more: the lengths of rays from a candidate to what
is dominated already, over fixed directions (Shang, Ishibuchi and Ni 2020), at a few draws of its values.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int

from nasjax.types import Objectives

SHORTLIST = 1024
"""Candidates between which a batch is chosen one after the other."""

DIRECTIONS, DRAWS = 64, 8
"""Rays, and draws of a candidate's values, for three and more objectives."""


@partial(jax.jit, static_argnums=7)
def choose(
    front: Float[Array, "front obj"],
    means: Objectives,
    deviations: Objectives,
    feasible: Float[Array, " pool"],
    barred: Bool[Array, " pool"],
    reference: Float[Array, " obj"],
    spare: Float[Array, " pool"],
    batch: int,
) -> Int[Array, " batch"]:
    """Rows of the pool in order of choice; `feasible` is each one's probability to keep the constraints.

    Rows of `front` that do not count are NaN. Where nothing is to be gained any more the greatest `spare` is taken; `barred`
    rows come last.
    """
    front = jnp.minimum(jnp.where(jnp.isnan(front).any(1, keepdims=True), reference[None], front), reference[None])
    # Rows on the reference count nothing: room for those to be chosen.
    front = jnp.concatenate([front, jnp.broadcast_to(reference, (batch, len(reference)))])
    deviations = jnp.maximum(deviations, 1e-6 * jnp.abs(means) + 1e-12)
    improvement = _BY_OBJECTIVES.get(means.shape[1], _rays)

    def worth(gains, feasible, spare, barred):
        """Gains are positive, what is spare is not, and barred rows come last."""
        gains = gains * feasible
        return jnp.where(barred, -jnp.inf, jnp.where(gains > 0, gains, jnp.minimum(spare, 0) - 1e-30))

    # Only those that promise most by themselves can be the best of a batch; for rays, which cost much, those furthest ahead.
    if improvement is _rays:
        gains = _ahead(front, jnp.asarray(means - deviations), reference)
    else:
        gain, _, state = improvement(front, means, deviations, reference)
        gains = gain(state)
    few = lax.top_k(worth(gains, feasible, spare, barred), min(SHORTLIST, len(means)))[1]
    means, deviations, feasible, spare, barred = (a[few] for a in (means, deviations, feasible, spare, barred))
    gain, add, state = improvement(front, means, deviations, reference)

    def take(carry, _):
        state, barred = carry
        best = jnp.argmax(worth(gain(state), feasible, spare, barred))
        return (add(state, best), barred.at[best].set(True)), best

    return few[lax.scan(take, (state, barred), length=batch)[1]]


def _below(level: Float[Array, "..."], mean: Float[Array, "..."], deviation: Float[Array, "..."]) -> Float[Array, "..."]:
    """E[max(level - Y, 0)] of a normal variable."""
    z = (level - mean) / deviation
    return jnp.maximum((level - mean) * norm.cdf(z) + deviation * norm.pdf(z), 0)


def _ahead(
    front: Float[Array, "front obj"], points: Float[Array, "pool obj"], reference: Float[Array, " obj"]
) -> Float[Array, " pool"]:
    """How far each point may fall back in all objectives, by like shares, until it is dominated; not above 0 where it is."""
    unit = reference - jnp.minimum(front.min(0), points.min(0)) + 1e-12
    front, points = front / unit, points / unit

    def less(nearest: Float[Array, " pool"], row: Float[Array, " obj"]) -> tuple[Float[Array, " pool"], None]:
        return jnp.minimum(nearest, (row[None] - points).max(1)), None

    return lax.scan(less, ((reference / unit)[None] - points).min(1), front)[0]


def _one(front, means, deviations, reference):
    def gain(best):
        return _below(best, means[:, 0], deviations[:, 0])

    return gain, lambda best, row: jnp.minimum(best, means[row, 0]), jnp.minimum(front.min(), reference[0])


def _two(front, means, deviations, reference):
    """The staircase of the front: the sum over its steps of expected width times expected height."""

    def gain(points):
        points = points[jnp.lexsort((points[:, 1], points[:, 0]))]
        edges = jnp.concatenate([points[:, 0], reference[:1]])
        steps = lax.cummin(jnp.concatenate([reference[1:], points[:, 1]]))
        widths = jnp.diff(_below(edges[None], means[:, :1], deviations[:, :1]), axis=1, prepend=0.0)
        heights = _below(steps[None], means[:, 1:], deviations[:, 1:])
        return (jnp.maximum(widths, 0) * heights).sum(1)

    def add(points, row):
        idle = jnp.argmax((points >= reference[None]).all(1))
        return points.at[idle].set(jnp.minimum(means[row], reference))

    return gain, add, front


def _rays(front, means, deviations, reference):
    """Lengths (pool, draws, directions), which every row of the front shortens; their powers are volumes."""
    objectives = means.shape[1]
    key = jax.random.key(0)
    directions = jnp.abs(jax.random.normal(key, (DIRECTIONS, objectives)))
    directions = jnp.maximum(directions / jnp.linalg.norm(directions, axis=1, keepdims=True), 1e-3)
    unit = reference - jnp.minimum(front.min(0), means.min(0)) + 1e-12
    levels = norm.ppf((jnp.arange(DRAWS, dtype=jnp.float32) + 0.5) / DRAWS)
    orders = jnp.stack([jax.random.permutation(jax.random.fold_in(key, i), levels) for i in range(objectives)], 1)
    points = (means[:, None] + deviations[:, None] * orders[None]) / unit

    def reach(row):
        """From every point to where `row` begins to dominate."""
        return ((row / unit - points)[:, :, None] / directions[None, None]).max(-1)

    edge = ((reference / unit - points)[:, :, None] / directions[None, None]).min(-1)
    # Rows on the reference shorten no ray.
    order = jnp.argsort((front >= reference[None]).any(1))
    rows = (front < reference[None]).all(1).sum()
    lengths = lax.fori_loop(0, rows, lambda i, lengths: jnp.minimum(lengths, reach(front[order[i]])), edge)

    def gain(lengths):
        return (jnp.maximum(lengths, 0) ** objectives).mean((1, 2))

    return gain, lambda lengths, row: jnp.minimum(lengths, reach(means[row])), lengths


_BY_OBJECTIVES = {1: _one, 2: _two}
