"""Building blocks of the algorithms against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from known_fronts import ELASTIC, plain, rows

from nasjax.algorithms import evosax, sms_emoa
from nasjax.algorithms.age_moea import _extreme_points, _front_norm
from nasjax.algorithms.decomposition import best_positions, chebyshev, directions, niches, normalised, positions_in_niche
from nasjax.algorithms.evolve import evolve
from nasjax.pareto import hypervolume_exact, non_dominated_sort, penalised


@pytest.mark.parametrize(("objectives", "number"), [(1, 5), (2, 7), (3, 15), (3, 40), (4, 30), (4, 3), (3, 1)])
def test_directions_are_distinct_points_of_the_simplex_with_its_corners(objectives, number):
    towards = directions(objectives, number)
    assert towards.shape == (number, objectives)
    np.testing.assert_allclose(towards.sum(axis=1), 1, rtol=1e-6)
    assert (towards >= 0).all()
    if objectives > 1:
        assert len(np.unique(towards, axis=0)) == number
    if number >= objectives > 1:
        assert rows(np.eye(objectives)) <= rows(towards)


def test_a_lattice_of_exactly_the_right_size_is_used_completely():
    lattice = {(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)}
    assert {tuple(row) for row in np.rint(4 * directions(3, 15)).astype(int).tolist()} == lattice


def test_penalties_move_no_scale_and_keep_their_order():
    values = jnp.asarray(np.random.default_rng(0).uniform(1, 9, (20, 3)), jnp.float32)
    broken = jnp.where(jnp.arange(20) < 5, jnp.arange(20, 0, -1) / 10, 0)
    scaled = normalised(penalised(values, broken), non_dominated_sort(penalised(values, broken)) == 0)
    alone = normalised(values[5:], non_dominated_sort(values[5:]) == 0)
    np.testing.assert_allclose(scaled[5:], alone)
    assert (np.diff(np.asarray(scaled[:5, 0])) < 0).all() and (scaled[:5] > alone.max()).all()


def test_rows_are_selected_one_at_a_time_from_the_niche_with_the_fewest():
    rng = np.random.default_rng(1)
    niche, distance = rng.integers(0, 4, 30), rng.permutation(30)
    level = np.asarray(positions_in_niche(jnp.asarray(niche, jnp.int32), jnp.asarray(distance)))
    given_so_far = np.zeros(4, int)
    left = set(range(30))
    for row in np.argsort(level, kind="stable"):
        open_niches = {int(niche[other]) for other in left}
        assert given_so_far[niche[row]] == min(given_so_far[one] for one in open_niches)
        assert distance[row] == min(distance[other] for other in left if niche[other] == niche[row])
        given_so_far[niche[row]] += 1
        left.remove(int(row))


def test_niches_are_the_nearest_lines():
    towards = directions(3, 15)
    rng = np.random.default_rng(2)
    scaled = rng.uniform(0, 1, (40, 3)).astype(np.float32)
    niche, distance = niches(jnp.asarray(scaled), towards)
    unit = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    apart = np.stack([np.linalg.norm(np.cross(scaled, line), axis=1) for line in unit], axis=1)
    np.testing.assert_allclose(distance, apart.min(axis=1), atol=1e-5)
    np.testing.assert_allclose(apart[np.arange(40), niche], apart.min(axis=1), atol=1e-5)


def test_points_on_a_front_are_the_best_of_their_own_direction():
    towards = directions(3, 15)
    on_front = jnp.asarray(towards / np.linalg.norm(towards, axis=1, keepdims=True))
    np.testing.assert_array_equal(chebyshev(on_front, towards).argmin(axis=1), np.arange(15))
    assert (best_positions(chebyshev(on_front, towards)) == 0).all()


@hypothesis(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), dimensions=st.integers(1, 3))
def test_contributions_are_the_loss_of_hypervolume_without_each_row(seed, dimensions):
    rng = np.random.default_rng(seed)
    # Few levels: ties and equal rows; some rows lie beyond the reference.
    points = jnp.asarray(rng.integers(0, 7, (12, dimensions)) / 5, jnp.float32)
    mask = jnp.asarray(rng.random(12) < 0.8)
    reference = jnp.full(dimensions, sms_emoa.SCALED_REFERENCE)
    valid = np.where(mask[:, None], points, np.nan)
    whole = hypervolume_exact(valid, reference)
    lost = [whole - hypervolume_exact(np.delete(valid, i, axis=0), reference) for i in range(12)]
    np.testing.assert_allclose(jax.jit(sms_emoa.hypervolume_contributions)(points, mask), lost, atol=1e-5)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
def test_the_norm_of_a_front_fits_its_shape(power):
    """Points whose coordinates to the `power` add up to 1."""
    points = jnp.asarray(directions(3, 45) ** (1 / power))
    first = jnp.ones(len(points), bool)
    extremes = _extreme_points(points, first)
    assert rows(np.rint(np.asarray(points[extremes]))) == rows(np.eye(3))
    assert float(_front_norm(points, first, extremes)) == pytest.approx(power, rel=0.1)


@pytest.mark.parametrize("space", [ELASTIC, plain((33, 3, 33))], ids=["elastic", "numbers"])
def test_scores_with_an_architecture_decode_to_it(space):
    archs = space.sample(jax.random.key(0), 50)
    scores = jax.random.normal(jax.random.key(1), (50, sum(evosax._reals_per_gene(space))))
    np.testing.assert_array_equal(
        space.canonical(evosax._scores_to_archs(space, evosax._scores_with_archs(space, scores, archs))), archs
    )


def test_scores_from_a_normal_distribution_choose_every_option_alike():
    space = plain((3, 33))
    archs = np.asarray(evosax._scores_to_archs(space, jax.random.normal(jax.random.key(0), (20_000, 4))))
    for column, count in enumerate(space.counts):
        share = np.bincount(archs[:, column], minlength=count) / 20_000 * count
        assert share.min() > 0.8 and share.max() < 1.2


def test_every_named_strategy_exists_in_evosax():
    from evosax.algorithms import algorithms

    assert set(evosax.EVOSAX_STRATEGIES) == set(algorithms) - {"RandomSearch", "SV_CMA_ES", "SV_Open_ES"}


def missed(_, archs):
    """How many steps all genes are away from one architecture, the worse the further along."""
    wanted = jnp.arange(archs.shape[1], dtype=jnp.int32) % 3
    return (jnp.abs(archs - wanted[None]) * (1 + wanted[None])).sum(1, dtype=jnp.int32).astype(jnp.float32)[:, None]


@pytest.mark.slow
@pytest.mark.parametrize("name", evosax.EVOSAX_STRATEGIES)
def test_every_strategy_finds_better_than_chance(name):
    """One objective, 24 genes of three options, 640 evaluations: better than the best of as many random architectures."""
    space, algorithm = plain((3,) * 24), evosax.Evosax(16, strategy=name)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        state = evolve(algorithm, space, missed, None, jax.random.key(0), 40, None, 1)
    drawn = missed(None, space.sample(jax.random.key(1), 640))
    found = float(np.nanmin(np.asarray(state.objectives)))
    assert found < float(drawn.min())
    # What it says of its best is true.
    np.testing.assert_allclose(missed(None, state.archs), state.objectives)
