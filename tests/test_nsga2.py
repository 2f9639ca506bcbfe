"""Properties of NSGA-II."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_fronts import ELASTIC, plain, rows, trade, weights

from nasjax.algorithms import NSGA2
from nasjax.algorithms.evolve import evolve
from nasjax.pareto import hypervolume_exact, non_dominated_sort
from nasjax.space import Gene, SearchSpace


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


def run(algorithm, generations=12, seed=0, space=ELASTIC, objective=trade, **options):
    return evolve(algorithm, space, objective, weights(), jax.random.key(seed), generations, **options)


def test_the_whole_front_of_a_small_space_is_found():
    everything = ELASTIC.all_architectures()
    best = hypervolume_exact(trade(weights(), everything), np.array([0.0, 200.0]))
    found = hypervolume_exact(run(NSGA2(50), generations=40).objectives, np.array([0.0, 200.0]))
    assert found >= 0.995 * best


@pytest.mark.parametrize("population", [16, 60])
def test_ask_returns_canonical_distinct_and_new_architectures(population):
    """252 architectures: enough for survivors and children of both populations."""
    assert ELASTIC.size == 252
    algorithm = NSGA2(population)
    state = algorithm.init(jax.random.key(0), ELASTIC)
    for step in range(8):
        before = rows(state.archs) if step else set()
        archs, state = algorithm.ask(state)
        np.testing.assert_array_equal(ELASTIC.canonical(archs), archs)
        assert (np.asarray(archs) < np.array(ELASTIC.counts)).all() and (np.asarray(archs) >= 0).all()
        assert len(rows(archs)) == population
        assert not rows(archs) & before
        state = algorithm.tell(state, archs, trade(weights(), archs))
        assert len(rows(state.archs)) == population


def test_a_space_smaller_than_the_population_is_evaluated_completely():
    space = plain((3, 2))
    state = evolve(NSGA2(10), space, lambda _, archs: archs.astype(jnp.float32), None, jax.random.key(0), 3)
    assert rows(state.archs) == rows(space.all_architectures())


def test_a_failed_measurement_does_not_hide_a_good_one_of_the_same_architecture():
    algorithm = NSGA2(16)
    state = algorithm.init(jax.random.key(0), ELASTIC)
    archs, state = algorithm.ask(state)
    state = algorithm.tell(state, archs, trade(weights(), archs))
    again = algorithm.tell(state, archs, jnp.full((16, 2), jnp.nan))
    np.testing.assert_array_equal(again.archs, state.archs)
    np.testing.assert_array_equal(again.objectives, state.objectives)


def test_survivors_are_the_best_fronts_of_all_evaluated_architectures():
    algorithm = NSGA2(16)
    state = algorithm.init(jax.random.key(0), ELASTIC)
    archs = ELASTIC.all_architectures()
    values = np.asarray(trade(weights(), archs))
    kept = rows(algorithm.tell(state, archs, values).archs)
    ranks = np.asarray(non_dominated_sort(values))
    worst = max(rank for arch, rank in zip(archs.tolist(), ranks, strict=True) if tuple(arch) in kept)
    better = rows(archs[ranks < worst])
    assert better <= kept and len(better) < 16 <= (ranks <= worst).sum()


def test_one_objective_finds_the_best_architecture():
    state = run(NSGA2(16), generations=25, objective=lambda w, archs: trade(w, archs)[:, :1], objectives=1)
    best = float(trade(weights(), ELASTIC.all_architectures())[:, 0].min())
    assert float(state.objectives[0, 0]) == pytest.approx(best)
    assert (np.diff(np.asarray(state.objectives)[:, 0]) >= 0).all()


def test_children_take_every_gene_from_a_parent_where_nothing_mutates():
    space = SearchSpace(tuple(Gene(f"g{i}", ("a", "b", "c", "d")) for i in range(8)))
    algorithm = NSGA2(20, crossover=1.0, mutation=0.0)
    start = np.concatenate([np.zeros((10, 8), np.int32), np.full((10, 8), 2, np.int32)])
    rng = np.random.default_rng(0)
    start = np.where(rng.random(start.shape) < 0.3, 2 - start, start)
    state = algorithm.init(jax.random.key(0), space, start)
    archs, state = algorithm.ask(state)
    archs, _ = algorithm.ask(algorithm.tell(state, start, start[:, :2].astype(np.float32)))
    mixed = np.isin(np.asarray(archs), (0, 2)).all(axis=1)
    assert mixed.mean() > 0.5  # the others replaced children that were like a parent
    assert len(rows(np.asarray(archs)[mixed])) > 5


def test_vmap_over_keys_equals_a_loop():
    algorithm, keys = NSGA2(16), jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda key: evolve(algorithm, ELASTIC, trade, weights(), key, 12))(keys)
    for i in range(3):
        np.testing.assert_array_equal(many.archs[i], evolve(algorithm, ELASTIC, trade, weights(), keys[i], 12).archs)
