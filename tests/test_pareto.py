"""Pareto functions against brute force in NumPy, and against pymoo and moocore."""

import jax
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nasjax.boxes import volumes
from nasjax.pareto import (
    best_rows,
    crowding_distance,
    hypervolume_exact,
    hypervolumes,
    non_dominated,
    non_dominated_exact,
    non_dominated_sort,
)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


# Few distinct values, so that ties and duplicates are common; one shape for each number of objectives, to compile once.
VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.5, -1.0, np.inf, np.nan])
POPULATIONS = st.integers(1, 4).flatmap(lambda m: hnp.arrays(np.float32, (12, m), elements=VALUES))
MASKS = hnp.arrays(bool, 12)


def brute_dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def brute_ranks(objectives, mask):
    left = {i for i in range(len(objectives)) if mask[i] and not np.isnan(objectives[i]).any()}
    ranks = np.full(len(objectives), len(objectives))
    rank = 0
    while left:
        front = {i for i in left if not any(brute_dominates(objectives[j], objectives[i]) for j in left)}
        ranks[list(front)] = rank
        left -= front
        rank += 1
    return ranks


@settings(max_examples=200, deadline=None)
@given(POPULATIONS, MASKS)
def test_ranks_and_front_are_those_of_brute_force(objectives, mask):
    expected = brute_ranks(objectives, mask)
    np.testing.assert_array_equal(non_dominated_sort(objectives, mask), expected)
    np.testing.assert_array_equal(non_dominated(objectives, mask), expected == 0)
    np.testing.assert_array_equal(non_dominated_sort(objectives), brute_ranks(objectives, np.ones(12, bool)))


@pytest.mark.parametrize("dimensions", [1, 2, 3, 5])
@pytest.mark.parametrize("levels", [7, 10_000])
def test_ranks_are_those_of_pymoo(dimensions, levels):
    objectives = np.random.default_rng(dimensions).integers(0, levels, (300, dimensions)).astype(np.float32)
    expected = np.full(300, -1)
    for rank, front in enumerate(NonDominatedSorting().do(objectives)):
        expected[front] = rank
    np.testing.assert_array_equal(non_dominated_sort(objectives), expected)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("enough", [1, 40, 300])
def test_once_enough_rows_are_ranked_the_others_share_the_next_rank(dimensions, enough):
    objectives = np.random.default_rng(enough).integers(0, 30, (200, dimensions)).astype(np.float32)
    valid = np.arange(200) % 10 > 0
    every = np.asarray(non_dominated_sort(objectives, valid))
    last = np.sort(every[valid])[min(enough, valid.sum()) - 1]
    expected = np.where(valid, np.minimum(every, last + 1), 200)
    np.testing.assert_array_equal(non_dominated_sort(objectives, valid, enough=enough), expected)


@settings(max_examples=100, deadline=None)
@given(POPULATIONS, st.permutations(range(12)))
def test_ranks_move_with_the_rows(objectives, order):
    order = np.array(order)
    np.testing.assert_array_equal(non_dominated_sort(objectives[order]), np.asarray(non_dominated_sort(objectives))[order])


def brute_crowding(objectives, ranks):
    distance = np.zeros(len(objectives))
    for rank in set(ranks.tolist()) - {len(objectives)}:
        rows = np.flatnonzero(ranks == rank)
        for column, values in enumerate(objectives[rows].T):
            order = rows[np.argsort(values, kind="stable")]
            value = np.sort(values)
            if objectives.shape[1] == 2 and column == 1:
                # Along a front of two objectives one goes down as the other goes up; equal rows keep that order, too.
                order = rows[np.argsort(objectives[rows, 0], kind="stable")][::-1]
            distance[order[[0, -1]]] = np.inf
            if value[-1] > value[0]:
                distance[order[1:-1]] += (value[2:] - value[:-2]) / (value[-1] - value[0])
    return distance


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3).flatmap(lambda m: hnp.arrays(np.float32, (12, m), elements=st.integers(-5, 5).map(float))),
    MASKS,
)
def test_crowding_distance_is_that_of_brute_force(objectives, mask):
    ranks = brute_ranks(objectives, mask)
    np.testing.assert_allclose(crowding_distance(objectives, ranks), brute_crowding(objectives, ranks), rtol=1e-5)


def test_crowding_distance_of_infinite_objectives_is_never_nan():
    objectives = np.array([[0, np.inf], [1, 5], [2, 4], [3, -np.inf]], np.float32)
    assert not np.isnan(crowding_distance(objectives, np.zeros(4, np.int32))).any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7).flatmap(
        lambda m: hnp.arrays(np.float32, (12, m), elements=st.one_of(st.integers(-1, 9).map(float), st.just(np.nan)))
    ),
    MASKS,
)
def test_hypervolume_is_that_of_moocore(objectives, mask):
    dimensions = objectives.shape[1]
    reference = np.linspace(5, 8, dimensions, dtype=np.float32)
    points = objectives[mask & ~np.isnan(objectives).any(axis=1)].astype(np.float64)
    inside = points[(points < reference).all(axis=1)]
    if dimensions == 1:
        expected = max(reference[0] - inside.min(), 0) if len(inside) else 0
    else:
        expected = moocore.hypervolume(points, ref=reference.astype(np.float64)) if len(points) else 0
    kept = np.where(mask[:, None], objectives, np.nan)
    np.testing.assert_allclose(hypervolume_exact(kept, reference), expected, rtol=1e-12)


@pytest.mark.parametrize(("dimensions", "number"), [(2, 500), (3, 100), (4, 80), (6, 60), (9, 25)])
def test_exact_hypervolume_of_random_fronts_is_that_of_moocore_to_twelve_digits(dimensions, number):
    points = np.abs(np.random.default_rng(0).normal(size=(number, dimensions)))
    points = 100 - points / np.linalg.norm(points, axis=1, keepdims=True)
    reference = np.full(dimensions, 100.01)
    expected = moocore.hypervolume(points, ref=reference)
    np.testing.assert_allclose(hypervolume_exact(points, reference), expected, rtol=1e-12)


def test_a_point_on_the_reference_contributes_nothing():
    objectives = np.array([[0.0, 2.0], [1.0, 1.0]], np.float32)
    assert hypervolume_exact(objectives, np.array([2.0, 2.0])) == 1.0


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_vmap_equals_a_loop(dimensions):
    objectives = np.random.default_rng(1).integers(0, 6, (4, 20, dimensions)).astype(np.float32)
    mask = np.random.default_rng(2).random((4, 20)) < 0.8
    for function in (
        non_dominated,
        non_dominated_sort,
        lambda values, counts: crowding_distance(values, non_dominated_sort(values, counts)),
    ):
        looped = np.stack([function(*row) for row in zip(objectives, mask, strict=True)])
        np.testing.assert_allclose(jax.vmap(function)(objectives, mask), looped, rtol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_padding_changes_nothing(dimensions):
    objectives = np.random.default_rng(3).random((20, dimensions), np.float32)
    padded, mask = np.concatenate([objectives, np.full((12, dimensions), -1, np.float32)]), np.arange(32) < 20
    ranks, alone = np.asarray(non_dominated_sort(padded, mask)), np.asarray(non_dominated_sort(objectives))
    np.testing.assert_array_equal(ranks[:20], alone)
    assert (ranks[20:] == 32).all()
    crowding = np.asarray(crowding_distance(padded, ranks))
    np.testing.assert_array_equal(crowding[:20], crowding_distance(objectives, alone))
    assert not crowding[20:].any()


def test_the_exact_front_separates_points_that_float32_merges():
    macs = np.array([244_945_104, 244_945_105], np.float64)
    objectives = np.stack([np.array([-75.0, -75.0]), macs], axis=1)
    assert np.asarray(non_dominated(objectives.astype(np.float32))).all()
    np.testing.assert_array_equal(non_dominated_exact(objectives), [True, False])
    assert hypervolume_exact(objectives, np.array([-74.0, 244_945_106.0])) == 2.0
    assert not jax.config.jax_enable_x64


def test_the_exact_functions_take_empty_and_failed_populations():
    assert hypervolume_exact(np.zeros((0, 2)), np.array([1.0, 1.0])) == 0.0
    assert hypervolume_exact(np.full((3, 2), np.nan), np.array([1.0, 1.0])) == 0.0
    assert non_dominated_exact(np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize("most", [1, 100])
def test_gains_beyond_the_most_boxes_are_estimated_to_a_hundredth(most):
    points = np.abs(np.random.default_rng(1).normal(size=(40, 6)))
    points = 1 - points / np.linalg.norm(points, axis=1, keepdims=True)
    exact, estimated = (volumes(points, np.full(6, 1.05), **limit) for limit in ({}, {"most": most}))
    assert estimated[0] == exact[0]
    gains = np.diff(exact, prepend=0)
    np.testing.assert_allclose(np.diff(estimated, prepend=0), gains, rtol=0.1, atol=0.01 * gains.max())
    np.testing.assert_allclose(estimated, exact, rtol=0.01)


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_hypervolumes_are_those_of_the_first_rows(objectives):
    rng = np.random.default_rng(objectives)
    values = rng.integers(0, 6, (25, objectives)).astype(np.float64)
    values[3] = values[7] = np.nan
    reference = np.full(objectives, 4.5)
    wanted = [hypervolume_exact(values[: i + 1], reference) for i in range(len(values))]
    np.testing.assert_allclose(hypervolumes(values, reference), wanted, rtol=1e-12)


def test_the_front_of_many_rows_of_three_objectives_is_that_of_all_pairs():
    values = np.random.default_rng(0).integers(0, 40, (2500, 3)).astype(float)
    values[::50, 1] = np.nan
    beaten = np.array([((values <= row).all(1) & (values < row).any(1)).any() for row in values])
    front = ~beaten & ~np.isnan(values).any(1)
    np.testing.assert_array_equal(non_dominated_exact(values), front)
    np.testing.assert_array_equal(non_dominated(values.astype(np.float32)), front)


def test_the_best_rows_are_whole_fronts_and_a_spread_of_the_last():
    steps = np.arange(40.0)
    values = np.concatenate([np.stack([steps, 39 - steps], 1) + offset for offset in (2, 1, 0)])
    values[3] = np.nan
    assert best_rows(values, 40).tolist() == list(range(80, 120))
    chosen = best_rows(values, 45)
    assert set(chosen[40:].tolist()) == {40, 49, 59, 69, 79}
    assert len(best_rows(values, 1000)) == 119


@settings(deadline=None, max_examples=50)
@given(POPULATIONS)
def test_the_front_in_float64_on_the_host_is_that_of_the_device(objectives):
    np.testing.assert_array_equal(non_dominated_exact(objectives), non_dominated(objectives))
