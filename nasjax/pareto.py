"""Non-dominated sorting, crowding distance and hypervolume of fixed-shape, masked populations; everything is minimised.

A row counts if its mask is True and none of its values is NaN. Under jit everything runs in the precision of its inputs;
float32 merges near neighbours, so numbers that are kept must come from `non_dominated_exact` and `hypervolume_exact`.

>>> error_and_latency = np.array([[3.0, 1.0], [1.0, 2.0], [3.0, 2.0], [np.nan, 0.0]])
>>> non_dominated_exact(error_and_latency)
array([ True,  True, False, False])
>>> hypervolume_exact(error_and_latency, np.array([4.0, 4.0]))
7.0
>>> non_dominated_sort(error_and_latency).tolist()  # 4: it does not count
[0, 0, 1, 4]
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num
from numpy import ndarray

from nasjax.types import Mask, Objectives, Violations


def _counting(objectives: Objectives, mask: Mask | None) -> Bool[Array, " pop"]:
    known = ~jnp.isnan(objectives).any(axis=1)
    return known if mask is None else known & jnp.asarray(mask)


def _levels(values: Float[Array, " pop"]) -> Int[Array, " pop"]:
    """Dense ranks: equal values share a level, so that infinities and ties need no further thought."""
    order = jnp.argsort(values)
    ordered = values[order]
    steps = jnp.concatenate([jnp.zeros(1, jnp.int32), (ordered[1:] != ordered[:-1]).astype(jnp.int32)])
    return jnp.zeros(values.shape, jnp.int32).at[order].set(jnp.cumsum(steps, dtype=jnp.int32))


def _by_front(objectives: Float[Array, "pop 2"], counts: Bool[Array, " pop"]):
    """The lexicographic order of two objectives, and a function from the rows remaining, in that order, to their front."""
    # Infinite values are finite here, so that infinity is worse than all of them, and what does not count comes last.
    most = jnp.finfo(objectives.dtype).max
    columns = [jnp.where(counts, jnp.minimum(column, most), jnp.inf) for column in objectives.T]
    number = len(counts)
    position = jnp.arange(number, dtype=jnp.int32)
    first, second, order = lax.sort((*columns, position), num_keys=2)
    new = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    # Equal rows are neighbours, and share the fate of the first of them.
    leader = lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), new]), position, 0))

    def front(left: Bool[Array, " pop"]) -> Bool[Array, " pop"]:
        best = lax.cummin(jnp.where(left, second, jnp.inf))
        before = jnp.concatenate([jnp.full(1, jnp.inf, best.dtype), best[:-1]])
        return left & (second < before)[leader]

    return order, front


def _below(levels: Num[Array, "pop obj"]) -> Bool[Array, "pop pop"]:
    """Element (i, j): row i dominates row j."""
    no_worse = (levels[:, None, :] <= levels[None, :, :]).all(axis=2)
    equal = (levels[:, None, :] == levels[None, :, :]).all(axis=2)
    return no_worse & ~equal


@jax.jit
def non_dominated(objectives: Objectives, mask: Mask | None = None) -> Bool[Array, " pop"]:
    """The rows that no other counting row dominates (no worse in all objectives, better in one); equal rows all stay.

    One sort for up to two objectives; for three and more every pair is compared.
    """
    objectives = jnp.asarray(objectives)
    counts = _counting(objectives, mask)
    number, dimensions = objectives.shape
    if number == 0:
        return counts
    if dimensions == 1:
        values = jnp.where(counts, objectives[:, 0], jnp.inf)
        return counts & (values == values.min())
    if dimensions == 2:
        order, front = _by_front(objectives, counts)
        return jnp.zeros(number, bool).at[order].set(front(counts[order]))
    return counts & ~(_below(objectives) & counts[:, None]).any(axis=0)


@jax.jit
def non_dominated_sort(objectives: Objectives, mask: Mask | None = None) -> Int[Array, " pop"]:
    """Ranks: 0 for the front, 1 for the front without it, and so on; `pop` for rows that do not count (Deb et al. 2002).

    One objective: one sort. Two: one sort, then a cumulative minimum a front. Three and more: fronts are peeled off the
    dominance matrix, which holds pop x pop booleans, so that a few thousand rows are the limit.
    """
    objectives = jnp.asarray(objectives)
    counts = _counting(objectives, mask)
    number, dimensions = objectives.shape
    if number == 0:
        return jnp.zeros(0, jnp.int32)
    if dimensions == 1:
        # Infinity and rows that do not count share a level; the latter are overwritten.
        return jnp.where(counts, _levels(jnp.where(counts, objectives[:, 0], jnp.inf)), number)
    if dimensions == 2:
        order, front = _by_front(objectives, counts)
    else:
        order = jnp.arange(number, dtype=jnp.int32)
        below = _below(objectives)

        def front(left: Bool[Array, " pop"]) -> Bool[Array, " pop"]:
            return left & ~(below & left[:, None]).any(axis=0)

    def peel(carry):
        ranks, left, rank = carry
        now = front(left)
        return jnp.where(now, rank, ranks), left & ~now, rank + 1

    start = jnp.full(number, number, jnp.int32), counts[order], jnp.zeros((), jnp.int32)
    ranks, _, _ = lax.while_loop(lambda carry: carry[1].any(), peel, start)
    return jnp.zeros(number, jnp.int32).at[order].set(ranks)


@jax.jit
def crowding_distance(objectives: Objectives, ranks: Int[Array | ndarray, " pop"]) -> Float[Array, " pop"]:
    """The sum over objectives of the gap between a row's two neighbours on its own front (Deb et al. 2002).

    Gaps are divided by the front's own range in that objective; a front's extremes are at infinity. Rows that do not count
    (rank `pop`) get 0. Equal rows lie side by side.
    """
    objectives, ranks = jnp.asarray(objectives), jnp.asarray(ranks)
    number = len(ranks)
    position = jnp.arange(number, dtype=jnp.int32)

    def gaps(columns: Float[Array, "pop obj"]) -> Float[Array, " pop"]:
        """The gaps of all `columns` along the order of the first."""
        sorted_ = lax.sort((ranks, *columns.T, position), num_keys=2)
        rank, order = sorted_[0], sorted_[-1]
        change = rank[1:] != rank[:-1]
        first, last = jnp.concatenate([jnp.ones(1, bool), change]), jnp.concatenate([change, jnp.ones(1, bool)])
        begins = lax.cummax(jnp.where(first, position, 0))
        ends = lax.cummin(jnp.where(last, position, number - 1), reverse=True)
        total = jnp.zeros(number, columns.dtype)
        for value in sorted_[1:-1]:
            span = jnp.abs(value[ends] - value[begins])
            gap = jnp.abs(jnp.concatenate([value[1:], value[-1:]]) - jnp.concatenate([value[:1], value[:-1]]))
            # Infinite objectives leave NaN gaps (inf - inf, inf / inf): no information, no distance.
            total += jnp.nan_to_num(jnp.where(span > 0, gap / jnp.where(span > 0, span, 1), 0), nan=0.0, posinf=1.0)
        return jnp.zeros_like(total).at[order].set(jnp.where(first | last, jnp.inf, total))

    if number == 0:
        return jnp.zeros(0, objectives.dtype)
    # On a front of two objectives the order along one is the reverse of that along the other.
    whole = [objectives] if objectives.shape[1] == 2 else [column[:, None] for column in objectives.T]
    return jnp.where(ranks < number, sum(map(gaps, whole)), 0)


@jax.jit
def hypervolume(
    objectives: Objectives, reference: Float[Array | ndarray, " obj"], mask: Mask | None = None
) -> Float[Array, ""]:
    """The volume that the counting rows dominate, bounded by `reference`; rows not strictly better than it count nothing.

    Exact. One sort for up to two objectives; each further one slices over the last objective, so costs a factor `pop`.
    """
    objectives = jnp.asarray(objectives)
    reference = jnp.asarray(reference, objectives.dtype)
    counts = _counting(objectives, mask) & (objectives < reference[None, :]).all(axis=1)
    # What does not count stands on the reference point, where it dominates nothing.
    return _volume(jnp.where(counts[:, None], objectives, reference[None, :]), reference)


def _volume(points: Float[Array, "pop obj"], reference: Float[Array, " obj"]) -> Float[Array, ""]:
    number, dimensions = points.shape
    if number == 0:
        return jnp.zeros((), points.dtype)
    if dimensions == 1:
        return reference[0] - points[:, 0].min()
    points = points[jnp.argsort(points[:, -1])]
    heights = jnp.concatenate([points[1:, -1], reference[-1:]]) - points[:, -1]
    if dimensions == 2:
        return ((reference[0] - lax.cummin(points[:, 0])) * heights).sum()

    def slab(i: Int[Array, ""]) -> Float[Array, ""]:
        """The cross-section between point i and the next: what the points so far dominate in the other objectives."""
        reached = jnp.arange(number) <= i
        section = jnp.where(reached[:, None], points[:, :-1], reference[None, :-1])
        return _volume(section, reference[:-1])

    return (lax.map(slab, jnp.arange(number)) * heights).sum()


def violations(values: Float[Array | ndarray, "pop columns"], limits: tuple[tuple[float, float], ...]) -> Violations:
    """How far each row is outside the least and greatest value of its columns, relative to them, in all; NaN if a value is.

    NumPy for NumPy's arrays, JAX for its own.

    >>> violations(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]]), ((-np.inf, 2.0), (-np.inf, np.inf)))
    array([0. , 0.5, nan])
    """
    library = np if isinstance(values, ndarray) else jnp
    total = 0 * values.sum(1)
    for column, (low, high) in zip(values.T, limits, strict=True):
        for limit, excess in ((low, low - column), (high, column - high)):
            if np.isfinite(limit):
                total = total + library.maximum(excess, 0) / (abs(limit) or 1.0)
    return total


INFEASIBLE = 1e30
"""More than any objective: what one unit of violation counts."""


@jax.jit
def penalised(objectives: Objectives, violations: Violations | None = None) -> Float[Array, "pop obj"]:
    """Objectives whose infeasible rows are worse, in each, than every feasible one, and the worse the more they violate.

    `violations` are 0 where all constraints hold, None where there are none; NaN is a failed row. Whatever then compares
    rows follows the constrained domination of Deb et al. 2002.
    """
    objectives = jnp.asarray(objectives)
    if violations is None:
        return objectives
    violations = jnp.asarray(violations, objectives.dtype)[:, None]
    beyond = jnp.clip(INFEASIBLE * violations, 1e20, 3e38)
    failed = jnp.isnan(objectives).any(1, keepdims=True) | jnp.isnan(violations)
    return jnp.where(failed, jnp.nan, jnp.where(violations > 0, beyond, objectives))


# -- in float64, on the host ----------------------------------------------------------------------------------------------


def _padded(objectives: Float[ndarray, "pop obj"]) -> Float[ndarray, "size obj"]:
    """NaN rows up to the next power of two, so that a growing archive does not compile again."""
    size = 1 << max(len(objectives) - 1, 0).bit_length()
    return np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.nan)


def non_dominated_exact(objectives: Objectives) -> Bool[ndarray, " pop"]:
    """`non_dominated` in float64, for what is stored or reported; not for use inside jit."""
    values = np.asarray(objectives, np.float64)
    with jax.enable_x64(True):
        return np.asarray(non_dominated(_padded(values)))[: len(values)]


def hypervolume_exact(objectives: Objectives, reference: Float[Array | ndarray, " obj"]) -> float:
    """`hypervolume` in float64, for what is stored or reported; not for use inside jit."""
    values = np.asarray(objectives, np.float64)
    front = np.unique(values[non_dominated_exact(values)], axis=0)
    with jax.enable_x64(True):
        return float(hypervolume(_padded(front), np.asarray(reference, np.float64)))


def hypervolumes(objectives: Objectives, reference: Float[Array | ndarray, " obj"]) -> list[float]:
    """`hypervolume_exact` of the first row, of the first two rows, and so on."""
    values, reference = np.asarray(objectives, np.float64), np.asarray(reference, np.float64)
    front = np.zeros((0, values.shape[1]))
    found: list[float] = []
    for row in values:
        # Most rows change nothing: failed, beyond the reference, or no better than one before.
        if (row < reference).all() and not (front <= row).all(1).any():
            front = np.concatenate([front[~(row <= front).all(1)], row[None]])
            found.append(hypervolume_exact(front, reference))
        else:
            found.append(found[-1] if found else 0.0)
    return found


def knee(values: Float[np.ndarray, "n obj"]) -> int:
    """The point of a front (minimised, finite) that is farthest below the plane through the ends of its objectives.

    Every objective is counted in parts of its range, so that it is the point with the least sum of parts (Das 1999, "On
    characterizing the knee of the Pareto curve based on normal-boundary intersection").
    """
    low, high = values.min(0), values.max(0)
    return int(((values - low) / np.where(high > low, high - low, 1.0)).sum(1).argmin())
