"""Building blocks of decomposition-based algorithms: reference directions, normalisation, Chebyshev values and niches.

Rows that break a constraint carry penalties as objectives (`nasjax.pareto.penalised`); they do not affect the scaling.
"""

from functools import lru_cache
from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from nasjax.sorting import argsort, lexsort

PENALTY_THRESHOLD = 1e19
"""Objectives above this value are penalties."""


@lru_cache(maxsize=64)
def directions(objectives: int, number: int) -> Float[np.ndarray, "number obj"]:
    """`number` directions spread evenly over the unit simplex, corners first.

    All points of a simplex lattice (Das and Dennis 1998) if one has exactly this number; otherwise points of a finer
    lattice, each chosen to be farthest from those before it.
    """
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
    # All corners are equally far from the centre: starting there, farthest-first selection takes the corners first.
    distance = np.linalg.norm(lattice - 1 / objectives, axis=1)
    chosen = []
    for _ in range(number):
        chosen.append(int(distance.argmax()))
        nearest = np.linalg.norm(lattice - lattice[chosen[-1]], axis=1)
        distance = np.minimum(distance, nearest) if len(chosen) > 1 else nearest
    return lattice[chosen].astype(np.float32)


def normalised(values: Float[Array, "pop obj"], front: Bool[Array, " pop"]) -> Float[Array, "pop obj"]:
    """Objectives scaled so that the `front` spans 0 (best) to 1 (worst).

    Penalties become values from 1e11 on, in the same order; NaN stays NaN.
    """
    counts = front & (values < PENALTY_THRESHOLD).all(axis=1)
    some = counts.any()
    low = jnp.where(some, jnp.where(counts[:, None], values, jnp.inf).min(axis=0), 0)
    high = jnp.where(some, jnp.where(counts[:, None], values, -jnp.inf).max(axis=0), 1)
    scale = jnp.where(high > low, high - low, 1)
    plain = jnp.clip((values - low[None]) / scale[None], -1e9, 1e9)
    return jnp.where(values < PENALTY_THRESHOLD, plain, 1e10 * jnp.log10(values))


def chebyshev(scaled: Float[Array, "pop obj"], towards: Float[Array | np.ndarray, "dirs obj"]) -> Float[Array, "dirs pop"]:
    """Augmented Chebyshev values (Steuer and Choo 1983) of each row for each direction; smaller is better."""
    ratios = scaled[None] / jnp.maximum(jnp.asarray(towards), 1e-3)[:, None]
    return ratios.max(axis=2) + 0.01 * ratios.mean(axis=2)


def niches(
    scaled: Float[Array, "pop obj"], towards: Float[Array | np.ndarray, "dirs obj"]
) -> tuple[Int[Array, " pop"], Float[Array, " pop"]]:
    """The reference direction nearest to each row, and the row's distance from that line through the ideal point."""
    towards = jnp.asarray(towards)
    unit = towards / jnp.linalg.norm(towards, axis=1, keepdims=True)
    along = (scaled[:, None] * unit[None]).sum(axis=2)
    apart = jnp.linalg.norm(scaled[:, None] - along[:, :, None] * unit[None], axis=2)
    niche = apart.argmin(axis=1)
    return niche.astype(jnp.int32), jnp.take_along_axis(apart, niche[:, None], axis=1)[:, 0]


def positions_in_niche(niche: Int[Array, " pop"], *keys: Num[Array, " pop"]) -> Int[Array, " pop"]:
    """Each row's position within its niche, from 0, sorted by `keys` (the last key first, as in `lexsort`).

    Selecting rows by position takes one row at a time from the niche that has contributed the fewest.
    """
    number = len(niche)
    order = lexsort((*keys, niche))
    position = jnp.arange(number, dtype=jnp.int32)
    change = niche[order][1:] != niche[order][:-1]
    start = lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), change]), position, 0))
    return jnp.zeros(number, jnp.int32).at[order].set(position - start)


def best_positions(scores: Float[Array, "dirs pop"]) -> Int[Array, " pop"]:
    """The best position of each row, from 0, over the rankings along all directions (NaN ranks last)."""
    order = jax.vmap(argsort)(scores)
    return jax.vmap(argsort)(order).min(axis=0)
