"""Non-dominated sorting and crowding distance of fixed-shape, masked populations; hypervolume; everything is minimised.

A row is valid if its mask is True and none of its values is NaN. Jitted functions compute in the precision of their inputs.
float32 cannot tell close points apart, so use `non_dominated_exact` and `hypervolume_exact` for what is stored or reported.

>>> error_and_latency = np.array([[3.0, 1.0], [1.0, 2.0], [3.0, 2.0], [np.nan, 0.0]])
>>> non_dominated_exact(error_and_latency)
array([ True,  True, False, False])
>>> hypervolume_exact(error_and_latency, np.array([4.0, 4.0]))
7.0
>>> non_dominated_sort(error_and_latency).tolist()  # invalid rows get the number of rows, 4
[0, 0, 1, 4]
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num
from numpy import ndarray

from nasjax.boxes import volumes
from nasjax.sorting import argsort, lexsort, narrow
from nasjax.types import Mask, Objectives, Violations

BLOCK = 1024
"""Rows of three or more objectives that are compared with all others at once."""


def _valid_rows(objectives: Objectives, mask: Mask | None) -> Bool[Array, " pop"]:
    """Rows whose mask is True (None: all) and that have no NaN."""
    known = ~jnp.isnan(objectives).any(axis=1)
    return known if mask is None else known & jnp.asarray(mask)


def _dense_ranks(values: Float[Array, " pop"]) -> Int[Array, " pop"]:
    """Dense ranks from 0: equal values, infinities included, share a rank."""
    order = argsort(values)
    ordered = values[order]
    steps = jnp.concatenate([jnp.zeros(1, jnp.int32), (ordered[1:] != ordered[:-1]).astype(jnp.int32)])
    return jnp.zeros(values.shape, jnp.int32).at[order].set(jnp.cumsum(steps, dtype=jnp.int32))


def _lexicographic_fronts(
    objectives: Float[Array, "pop 2"], valid: Bool[Array, " pop"]
) -> tuple[Int[Array, " pop"], Callable[[Bool[Array, " pop"]], Bool[Array, " pop"]]]:
    """The lexicographic order of two objectives, and a function that returns the front of a set of rows in that order."""
    # Infinite objectives become the largest finite number, so that only invalid rows are infinite and come last.
    most = jnp.finfo(objectives.dtype).max
    columns = [jnp.where(valid, jnp.minimum(column, most), jnp.inf) for column in objectives.T]
    order = lexsort((columns[1], columns[0]))
    first, second = columns[0][order], columns[1][order]
    position = jnp.arange(len(valid), dtype=jnp.int32)
    new = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    # Equal rows are neighbours: all of them are on the front if the first one is.
    leader = lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), new]), position, 0))

    def front(left: Bool[Array, " pop"]) -> Bool[Array, " pop"]:
        best = lax.cummin(jnp.where(left, second, jnp.inf))
        before = jnp.concatenate([jnp.full(1, jnp.inf, best.dtype), best[:-1]])
        return left & (second < before)[leader]

    return order, front


def _dominance_matrix(levels: Num[Array, "pop obj"]) -> Bool[Array, "pop pop"]:
    """Element (i, j) is True if row i dominates row j."""
    no_worse = (levels[:, None, :] <= levels[None, :, :]).all(axis=2)
    equal = (levels[:, None, :] == levels[None, :, :]).all(axis=2)
    return no_worse & ~equal


@jax.jit
def non_dominated(objectives: Objectives, mask: Mask | None = None) -> Bool[Array, " pop"]:
    """Mask of the valid rows that no valid row dominates (no worse in all objectives, better in one); ties are all kept.

    One sort for up to two objectives; for three or more all pairs are compared.
    """
    objectives = jnp.asarray(objectives)
    valid = _valid_rows(objectives, mask)
    number, dimensions = objectives.shape
    if number == 0:
        return valid
    if dimensions == 1:
        values = jnp.where(valid, objectives[:, 0], jnp.inf)
        return valid & (values == values.min())
    if dimensions == 2:
        order, front = _lexicographic_fronts(objectives, valid)
        return jnp.zeros(number, bool).at[order].set(front(valid[order]))
    if number <= BLOCK:
        return valid & ~(_dominance_matrix(objectives) & valid[:, None]).any(axis=0)

    def dominated(row: Float[Array, " obj"]) -> Bool[Array, ""]:
        return (valid & (objectives <= row[None]).all(1) & (objectives < row[None]).any(1)).any()

    return valid & ~lax.map(dominated, objectives, batch_size=BLOCK)  # a matrix of all pairs would not fit into memory


@partial(jax.jit, static_argnames="enough")
def non_dominated_sort(objectives: Objectives, mask: Mask | None = None, enough: int | None = None) -> Int[Array, " pop"]:
    """Non-domination ranks (Deb et al. 2002): 0 for the front, 1 for the front of the rest, and so on; `pop` if invalid.

    With two or more objectives, once `enough` rows are ranked the other valid rows share the next rank (None: no row does).
    One objective takes one sort; two take one sort and a cumulative minimum per front. For three or more the fronts are
    peeled off a dominance matrix of pop x pop booleans, which is practical for a few thousand rows.
    """
    objectives = jnp.asarray(objectives)
    valid = _valid_rows(objectives, mask)
    number, dimensions = objectives.shape
    if number == 0:
        return jnp.zeros(0, jnp.int32)
    if dimensions == 1:
        # Infinite objectives and invalid rows share a rank here; that of invalid rows is overwritten.
        return jnp.where(valid, _dense_ranks(jnp.where(valid, objectives[:, 0], jnp.inf)), number)
    if dimensions == 2:
        order, front = _lexicographic_fronts(objectives, valid)
    else:
        order = jnp.arange(number, dtype=jnp.int32)
        dominates = _dominance_matrix(objectives)

        def front(left: Bool[Array, " pop"]) -> Bool[Array, " pop"]:
            return left & ~(dominates & left[:, None]).any(axis=0)

    def peel(carry):
        ranks, left, rank = carry
        now = front(left)
        return jnp.where(now, rank, ranks), left & ~now, rank + 1

    surplus = jnp.maximum(valid.sum() - (number if enough is None else enough), 0)
    start = jnp.full(number, number, jnp.int32), valid[order], jnp.zeros((), jnp.int32)
    ranks, left, rank = lax.while_loop(lambda carry: carry[1].sum() > surplus, peel, start)
    return jnp.zeros(number, jnp.int32).at[order].set(jnp.where(left, rank, ranks))


@jax.jit
def crowding_distance(objectives: Objectives, ranks: Int[Array | ndarray, " pop"]) -> Float[Array, " pop"]:
    """Crowding distance (Deb et al. 2002): the sum over objectives of the gap between a row's two neighbours on its front.

    Gaps are divided by the range of the front in that objective. The extremes of a front get infinity, invalid rows (rank
    `pop`) get 0.
    """
    objectives, ranks = jnp.asarray(objectives), jnp.asarray(ranks)
    number = len(ranks)
    position = jnp.arange(number, dtype=jnp.int32)

    def gaps(columns: Float[Array, "pop obj"]) -> Float[Array, " pop"]:
        """The summed gaps in all `columns` when each front is sorted by the first one."""
        order = lexsort((columns[:, 0], narrow(ranks, number)))
        rank = ranks[order]
        change = rank[1:] != rank[:-1]
        first, last = jnp.concatenate([jnp.ones(1, bool), change]), jnp.concatenate([change, jnp.ones(1, bool)])
        begins = lax.cummax(jnp.where(first, position, 0))
        ends = lax.cummin(jnp.where(last, position, number - 1), reverse=True)
        total = jnp.zeros(number, columns.dtype)
        for value in columns[order].T:
            span = jnp.abs(value[ends] - value[begins])
            gap = jnp.abs(jnp.concatenate([value[1:], value[-1:]]) - jnp.concatenate([value[:1], value[:-1]]))
            # Infinite objectives give NaN gaps (inf - inf, inf / inf), which count as 0.
            total += jnp.nan_to_num(jnp.where(span > 0, gap / jnp.where(span > 0, span, 1), 0), nan=0.0, posinf=1.0)
        return jnp.zeros_like(total).at[order].set(jnp.where(first | last, jnp.inf, total))

    if number == 0:
        return jnp.zeros(0, objectives.dtype)
    # With two objectives, the order of a front by one is the reverse of the order by the other: one sort does both.
    groups = [objectives] if objectives.shape[1] == 2 else [column[:, None] for column in objectives.T]
    return jnp.where(ranks < number, sum(map(gaps, groups)), 0)


def violations(values: Float[Array | ndarray, "pop columns"], limits: tuple[tuple[float, float], ...]) -> Violations:
    """Total constraint violation of each row: the excess over each column's (least, greatest) limit, relative to that limit.

    0 where a row keeps all limits, NaN where any of its values is NaN; infinite limits do not constrain. Returns a NumPy
    array for NumPy input, a JAX array for JAX input.

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


PENALTY_PER_VIOLATION = 1e30
"""Penalised objective of a row with a violation of 1; larger than any objective."""


@jax.jit
def penalised(objectives: Objectives, violations: Violations | None = None) -> Float[Array, "pop obj"]:
    """Objectives in which infeasible rows are worse than all feasible ones, and the more so the larger their violation.

    `violations` are as returned by `violations` (0: feasible, NaN: failed); None means that there are no constraints.
    Sorting the result by dominance gives the constrained dominance of Deb et al. 2002.
    """
    objectives = jnp.asarray(objectives)
    if violations is None:
        return objectives
    violations = jnp.asarray(violations, objectives.dtype)[:, None]
    beyond = jnp.clip(PENALTY_PER_VIOLATION * violations, 1e20, 3e38)
    failed = jnp.isnan(objectives).any(1, keepdims=True) | jnp.isnan(violations)
    return jnp.where(failed, jnp.nan, jnp.where(violations > 0, beyond, objectives))


# -- in float64, on the host ----------------------------------------------------------------------------------------------


def _pad_to_power_of_two(objectives: Float[ndarray, "pop obj"]) -> Float[ndarray, "size obj"]:
    """The rows, padded with NaN to the next power of two so that a growing archive rarely recompiles."""
    size = 1 << max(len(objectives) - 1, 0).bit_length()
    return np.pad(objectives, ((0, size - len(objectives)), (0, 0)), constant_values=np.nan)


def _front_by_sorting(values: Float[ndarray, "pop obj"]) -> Bool[ndarray, " pop"]:
    """`non_dominated` of one or two objectives in NumPy: nothing compiles as an archive grows."""
    mask = np.zeros(len(values), bool)
    valid = np.flatnonzero(~np.isnan(values).any(1))
    if len(valid):
        rows = np.minimum(values[valid], np.finfo(np.float64).max)
        order = np.lexsort(rows.T[::-1])
        rows = rows[order]
        new = np.append(True, (rows[1:] != rows[:-1]).any(1))
        # Equal rows are neighbours: all of them are on the front if the first one is.
        leader = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
        front = rows[:, -1] < np.append(np.inf, np.minimum.accumulate(rows[:-1, -1]))
        mask[valid[order[front[leader]]]] = True
    return mask


def non_dominated_exact(objectives: Objectives) -> Bool[ndarray, " pop"]:
    """`non_dominated` in float64 on the host, for values that are stored or reported; cannot be used inside jit."""
    values = np.asarray(objectives, np.float64)
    if values.shape[1] <= 2:
        return _front_by_sorting(values)
    rows = np.arange(len(values))
    if len(values) > BLOCK:
        # Comparing all pairs takes long: what a row of its own block dominates is left out first.
        blocks = np.split(rows, range(BLOCK, len(values), BLOCK))
        rows = np.concatenate([block[non_dominated_exact(values[block])] for block in blocks])
    with jax.enable_x64(True):
        front = np.asarray(non_dominated(_pad_to_power_of_two(values[rows])))[: len(rows)]
    mask = np.zeros(len(values), bool)
    mask[rows[front]] = True
    return mask


def best_rows(objectives: Objectives, number: int) -> Int[ndarray, " best"]:
    """`number` valid rows (fewer if there are fewer) by non-domination rank, in float64 on the host.

    Of the last front, rows evenly spread over it are chosen.
    """
    values = np.asarray(objectives, np.float64)
    left = np.lexsort(values.T[::-1])
    left = left[~np.isnan(values[left]).any(1)]
    best = left[:0]
    while len(left) and len(best) < number:
        now = non_dominated_exact(values[left])
        front = left[now]
        if len(front) > number - len(best):
            front = front[np.linspace(0, len(front) - 1, number - len(best)).astype(int)]
        best, left = np.concatenate([best, front]), left[~now]
    return best


def hypervolume_exact(objectives: Objectives, reference: Float[Array | ndarray, " obj"]) -> float:
    """The hypervolume that valid rows dominate, bounded by `reference`, in float64 on the host; cannot be used inside jit.

    Rows that are not better than the reference in every objective contribute nothing.
    """
    values, reference = np.asarray(objectives, np.float64), np.asarray(reference, np.float64)
    front = np.unique(values[non_dominated_exact(values)], axis=0)
    if values.shape[1] > 2:
        return (hypervolumes(front, reference) or [0.0])[-1]
    front = front[(front < reference).all(1)]
    widths = np.diff(front[:, 0], append=reference[0])
    return float((widths * (reference[1:] - front[:, 1:]).prod(1)).sum())


def hypervolumes(objectives: Objectives, reference: Float[Array | ndarray, " obj"]) -> list[float]:
    """The hypervolume after each evaluation: `hypervolume_exact` of the first row, the first two rows, and so on.

    With many objectives and points gains are estimated in the end (`boxes.MOST_BOXES`).
    """
    values, reference = np.asarray(objectives, np.float64), np.asarray(reference, np.float64)
    if values.shape[1] > 2:
        better = (values < reference).all(1)  # Not those that failed.
        after = np.concatenate([[0.0], volumes(values[better], reference)])
        return after[np.cumsum(better)].tolist()
    front = np.zeros((0, values.shape[1]))
    found: list[float] = []
    for row in values:
        # Most rows change nothing: they failed, are beyond the reference, or are no better than an earlier row.
        if (row < reference).all() and not (front <= row).all(1).any():
            front = np.concatenate([front[~(row <= front).all(1)], row[None]])
            found.append(hypervolume_exact(front, reference))
        else:
            found.append(found[-1] if found else 0.0)
    return found


def knee(values: Float[np.ndarray, "n obj"]) -> int:
    """Index of the knee of a front (finite values, minimised): the point farthest below the plane through the extremes.

    Objectives are scaled to [0, 1] over the front, and the knee is the point with the least sum of scaled objectives (Das
    1999, "On characterizing the knee of the Pareto curve based on normal-boundary intersection").
    """
    low, high = values.min(0), values.max(0)
    return int(((values - low) / np.where(high > low, high - low, 1.0)).sum(1).argmin())
