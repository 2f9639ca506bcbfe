"""What the algorithms that decompose a front share: directions, normalisation, augmented-Chebyshev values and niches.

Nothing here is spoilt by rows that break a constraint (`nasjax.pareto.penalised`): they do not move the scale.
"""

from functools import lru_cache
from itertools import combinations
from math import comb

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

LIMIT = 1e19
"""Objectives beyond this are penalties."""


@lru_cache(maxsize=64)
def directions(objectives: int, number: int) -> Float[np.ndarray, "number obj"]:
    """`number` directions spread over the unit simplex, its corners first: all of a lattice (Das and Dennis 1998) where one
    has just so many points, else the points of a finer one that are farthest from those before them."""
    if objectives == 1 or number == 1:
        return np.full((number, objectives), 1 / objectives, np.float32)
    parts = 1
    while comb(parts + objectives - 1, objectives - 1) < number:
        parts += 1
    if comb(parts + objectives - 1, objectives - 1) != number:
        parts *= 2
    bars = np.array(list(combinations(range(parts + objectives - 1), objectives - 1)))
    edges = np.pad(bars, ((0, 0), (1, 1)), constant_values=((0, 0), (-1, parts + objectives - 1)))
    lattice = (np.diff(edges, axis=1) - 1) / parts
    # The centre is equally far from all corners: after it, farthest first starts with them.
    distance = np.linalg.norm(lattice - 1 / objectives, axis=1)
    chosen = []
    for _ in range(number):
        chosen.append(int(distance.argmax()))
        nearest = np.linalg.norm(lattice - lattice[chosen[-1]], axis=1)
        distance = np.minimum(distance, nearest) if len(chosen) > 1 else nearest
    return lattice[chosen].astype(np.float32)


def normalised(values: Float[Array, "pop obj"], front: Bool[Array, " pop"]) -> Float[Array, "pop obj"]:
    """Values on a scale from the best (0) to the worst (1) of the `front`; penalties from 1e11 on, in order; NaN stays."""
    counts = front & (values < LIMIT).all(axis=1)
    some = counts.any()
    low = jnp.where(some, jnp.where(counts[:, None], values, jnp.inf).min(axis=0), 0)
    high = jnp.where(some, jnp.where(counts[:, None], values, -jnp.inf).max(axis=0), 1)
    scale = jnp.where(high > low, high - low, 1)
    plain = jnp.clip((values - low[None]) / scale[None], -1e9, 1e9)
    return jnp.where(values < LIMIT, plain, 1e10 * jnp.log10(values))


def chebyshev(scaled: Float[Array, "pop obj"], towards: Float[Array | np.ndarray, "dirs obj"]) -> Float[Array, "dirs pop"]:
    """Augmented-Chebyshev values (Steuer and Choo 1983): how far a row reaches along each direction from the ideal point."""
    ratios = scaled[None] / jnp.maximum(jnp.asarray(towards), 1e-3)[:, None]
    return ratios.max(axis=2) + 0.01 * ratios.mean(axis=2)


def niches(
    scaled: Float[Array, "pop obj"], towards: Float[Array | np.ndarray, "dirs obj"]
) -> tuple[Int[Array, " pop"], Float[Array, " pop"]]:
    """The direction nearest to each row, and the row's distance from that line through the ideal point."""
    towards = jnp.asarray(towards)
    unit = towards / jnp.linalg.norm(towards, axis=1, keepdims=True)
    along = (scaled[:, None] * unit[None]).sum(axis=2)
    apart = jnp.linalg.norm(scaled[:, None] - along[:, :, None] * unit[None], axis=2)
    niche = apart.argmin(axis=1)
    return niche.astype(jnp.int32), jnp.take_along_axis(apart, niche[:, None], axis=1)[:, 0]


def levels(niche: Int[Array, " pop"], *keys: Num[Array, " pop"]) -> Int[Array, " pop"]:
    """Each row's place in its own niche, from 0, sorted by `keys` (the last first, as `jnp.lexsort`).

    To take rows by level is to take one at a time from the niche that has given least so far.
    """
    number = len(niche)
    order = jnp.lexsort((*keys, niche))
    position = jnp.arange(number, dtype=jnp.int32)
    change = niche[order][1:] != niche[order][:-1]
    start = lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), change]), position, 0))
    return jnp.zeros(number, jnp.int32).at[order].set(position - start)


def places(scores: Float[Array, "dirs pop"]) -> Int[Array, " pop"]:
    """The best place that each row takes in any direction, from 0 (NaN last)."""
    order = jnp.argsort(scores, axis=1)
    return jnp.argsort(order, axis=1).min(axis=0).astype(jnp.int32)
