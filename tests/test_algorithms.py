"""Properties of every algorithm."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known_fronts import ELASTIC, rows, trade, weights

from nasjax.algorithms import ALGORITHMS
from nasjax.algorithms.evolve import evolve
from nasjax.pareto import hypervolume_exact
from nasjax.registry import record, settings

POPULATION, GENERATIONS = 16, 20
REFERENCE = np.array([0.0, 200.0])
QUICK = ("nsga2", "ctaea", "snes")
"""One algorithm for each kind of state; the slow tests cover the others, but for what follows from the state alone."""
EVERY_ALGORITHM = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALGORITHMS]


@pytest.fixture(autouse=True)
def strict_types():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def made(name):
    return settings("algorithm", ALGORITHMS, {"name": name, "population": POPULATION})


def start():
    return ELASTIC.sample(jax.random.key(9), 6)


def plain_values(archs):
    return trade(weights(), archs), jnp.zeros(len(archs))


def bounded(archs):
    """The cheapest architectures are forbidden, which the unconstrained front is full of."""
    values = trade(weights(), archs)
    return values, jnp.maximum(60 - values[:, 1], 0)


def failing(archs):
    """One failed value is enough, and the rest of the row is the best that there is."""
    values = trade(weights(), archs)
    return jnp.where((jnp.asarray(archs)[:, 1] == 1)[:, None], jnp.array([[jnp.nan, -1e9]]), values), jnp.zeros(len(archs))


def failed(archs):
    return jnp.full((len(archs), 2), jnp.nan), jnp.zeros(len(archs))


@cache
def history(name, objective, seed=0):
    """The architectures asked for at each step, and the state after it."""
    algorithm = made(name)
    state = algorithm.init(jax.random.key(seed), ELASTIC, start())
    steps = []
    for _ in range(GENERATIONS):
        archs, state = algorithm.ask(state)
        state = algorithm.tell(state, archs, *objective(archs))
        steps.append((np.asarray(archs), state))
    return steps


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_ask_returns_canonical_distinct_and_new_architectures(name):
    """252 architectures: enough for survivors and children."""
    kept: set = set()
    for archs, state in history(name, plain_values):
        np.testing.assert_array_equal(ELASTIC.canonical(archs), archs)
        assert (archs < np.array(ELASTIC.counts)).all() and (archs >= 0).all()
        assert len(rows(archs)) == POPULATION
        assert not rows(archs) & kept
        kept = rows(state.archs)
        assert len(kept) == POPULATION


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_the_first_ask_returns_the_start_topped_up(name):
    assert rows(start()) <= rows(history(name, plain_values)[0][0])


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_survivors_keep_their_values_and_are_near_the_true_front(name):
    best = hypervolume_exact(trade(weights(), ELASTIC.all_architectures()), REFERENCE)
    state = history(name, plain_values)[-1][1]
    np.testing.assert_array_equal(state.objectives, trade(weights(), state.archs))
    found = hypervolume_exact(state.objectives, REFERENCE) / best
    print(name, found)
    assert found >= 0.95


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_a_key_gives_one_result_another_key_another_and_nothing_compiles_again(name):
    algorithm = made(name)
    again = history.__wrapped__(name, plain_values)
    compiled = [getattr(type(algorithm), step)._cache_size() for step in ("init", "ask", "tell")]
    for (archs, _), (same, _) in zip(history(name, plain_values), again, strict=True):
        np.testing.assert_array_equal(archs, same)
    assert rows(history.__wrapped__(name, plain_values, 1)[2][0]) != rows(again[2][0])
    assert min(compiled) > 0
    assert compiled == [getattr(type(algorithm), step)._cache_size() for step in ("init", "ask", "tell")]


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_failed_rows_never_survive_while_others_exist(name):
    state = history(name, failing)[-1][1]
    assert np.isfinite(state.objectives).all()
    assert not (np.asarray(state.archs)[:, 1] == 1).any()


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_everything_failed_is_survived(name):
    archs, state = history(name, failed)[-1]
    assert len(rows(archs)) == len(rows(state.archs)) == POPULATION
    assert np.isnan(state.objectives).all()


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_constraints_are_kept_and_the_best_within_them_is_found(name):
    everything = np.asarray(trade(weights(), ELASTIC.all_architectures()))
    within = everything[everything[:, 1] >= 60]
    best = hypervolume_exact(within, REFERENCE)
    assert best < hypervolume_exact(everything, REFERENCE)
    values = np.asarray(trade(weights(), history(name, bounded)[-1][1].archs))
    assert (values[:, 1] >= 60).all()
    found = hypervolume_exact(values, REFERENCE) / best
    print(name, found)
    assert found >= 0.95


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
@pytest.mark.parametrize("objectives", [1, 4])
def test_shapes_hold_for_one_and_four_objectives(name, objectives):
    algorithm = made(name)

    def step(key):
        archs, state = algorithm.ask(algorithm.init(key, ELASTIC, None, objectives))
        return state, algorithm.tell(state, archs, jnp.ones((len(archs), objectives)))

    if (name, objectives) == ("sms_emoa", 4):
        with pytest.raises(ValueError, match="up to three objectives, not 4"):
            jax.eval_shape(step, jax.random.key(0))
    else:
        before, after = jax.eval_shape(step, jax.random.key(0))
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), before) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), after
        )


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_a_scan_equals_a_loop_of_ask_and_tell(name):
    scanned = evolve(
        made(name), ELASTIC, lambda _, archs: plain_values(archs), None, jax.random.key(0), GENERATIONS, start()
    )
    looped = history(name, plain_values)[-1][1]
    np.testing.assert_array_equal(looped.archs, scanned.archs)
    np.testing.assert_allclose(looped.objectives, scanned.objectives, rtol=1e-6)


@pytest.mark.parametrize("name", EVERY_ALGORITHM)
def test_tell_accepts_fewer_and_other_rows_than_ask_returned(name):
    """A tactic replaces what was measured before, and a budget ends in the middle of a step."""
    algorithm = made(name)
    state = history(name, plain_values)[3][1]
    others = ELASTIC.sample(jax.random.key(5), 5)
    _, state = algorithm.ask(state)
    told = algorithm.tell(state, others, trade(weights(), others))
    np.testing.assert_array_equal(told.objectives, trade(weights(), told.archs))
    assert rows(told.archs) <= rows(state.archs) | rows(others)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_new_parameters_do_not_compile_a_run_again(name):
    run = [made(name), ELASTIC, trade]
    evolve(*run, weights(), jax.random.key(0), 3)
    compiled = evolve._cache_size()
    evolve(*run, 2 * weights(), jax.random.key(5), 3)
    assert evolve._cache_size() == compiled


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_vmap_over_keys_equals_a_loop(name):
    def run(key):
        return evolve(made(name), ELASTIC, trade, weights(), key, 5)

    keys = jax.random.split(jax.random.key(0), 2)
    many = jax.vmap(run)(keys)
    for i in range(2):
        np.testing.assert_allclose(many.objectives[i], run(keys[i]).objectives, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_objective_finds_the_best_architecture(name):
    def objective(parameters, archs):
        return trade(parameters, archs)[:, :1]

    state = evolve(made(name), ELASTIC, objective, weights(), jax.random.key(0), 25, objectives=1)
    best = float(trade(weights(), ELASTIC.all_architectures())[:, 0].min())
    assert float(state.objectives[:, 0].min()) == pytest.approx(best)


def test_settings_are_written_down_as_they_are_read():
    for name in ALGORITHMS:
        words = record(ALGORITHMS, made(name))
        assert words["name"] == name
        assert settings("algorithm", ALGORITHMS, words) == made(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "evosax", "strategy": "snes"}, "strategy 'snes' is unknown; allowed: ARS, "),
        ({"name": "snes", "population": 1}, "population must be at least 2, not 1"),
        ({"name": "ga", "mutation": 2.0}, "mutation must be from 0 to 1, not 2.0"),
        ({"name": "moead", "neighbours": 1}, "neighbours must be at least 2, not 1"),
    ],
)
def test_invalid_settings_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        settings("algorithm", ALGORITHMS, words)
