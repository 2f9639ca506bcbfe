"""What the default tactic aims at, which candidates it considers, and what predictors say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_improvement import case, choose
from test_ridge import SPACE

from nasjax.algorithms import NSGA2
from nasjax.predictors import GaussianProcess, Inputs
from nasjax.space import Gene, SearchSpace
from nasjax.tactics import Measured, Problem, ehvi
from nasjax.tactics.predicting import Candidates, fit_predictors, prediction

FAR = np.array([10.0, 100.0])


def test_the_aim_is_a_margin_behind_the_worst_of_the_front_in_each_objective():
    front = np.array([[1.0, 50.0], [2.0, 30.0], [5.0, 10.0]])
    dominated = np.array([[9.0, 60.0], [np.nan, 1.0], [5.0, 99.0]])
    values = np.concatenate([dominated, front])
    np.testing.assert_allclose(ehvi.aim(values, FAR, 0.25), [6.0, 60.0])
    np.testing.assert_allclose(ehvi.aim(3 * values - 7, 3 * FAR - 7, 0.25), 3 * np.array([6.0, 60.0]) - 7)
    # What is asked for is never exceeded; a network beyond it stretches the range up to it.
    np.testing.assert_array_equal(ehvi.aim(values, FAR, 9.0), FAR)
    np.testing.assert_allclose(ehvi.aim(values, np.array([4.0, 100.0]), 0.25), [4.0, 60.0])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((0, 2)),
        np.full((3, 2), np.nan),
        [[1.0, 2.0], [3.0, 4.0]],
        [[11.0, 1.0]],
        [[11.0, 1.0], [12.0, 0.5]],
        [[1.0, 1.0], [1.0, 1.0]],
    ],
)
def test_without_two_networks_on_the_front_or_one_within_the_reference_the_aim_is_the_reference(values):
    np.testing.assert_array_equal(ehvi.aim(np.asarray(values), FAR, 0.1), FAR)


def test_the_aim_is_the_reference_where_the_front_has_one_value():
    front = np.array([[1.0, 3.0, 7.0], [2.0, 2.0, 7.0]])
    np.testing.assert_allclose(ehvi.aim(front, np.full(3, 9.0), 0.5), [2.5, 3.5, 9.0])


@pytest.mark.parametrize("batch", [1, 2, 5, 7, 40])
def test_one_of_five_then_half_of_all_are_chosen_by_uncertainty_whatever_the_batch(batch):
    tactic, missed = ehvi.Ehvi(), np.zeros(1000, bool)
    early = [tactic._unsure(missed[:n], batch) for n in range(20, 20 + 40 * batch, batch) if n < 100]
    assert abs(sum(early) - len(early) * batch / 5) <= 1
    late = [tactic._unsure(missed[:n], batch) for n in range(100, 100 + 20 * batch, batch)]
    assert abs(sum(late) - 10 * batch) <= 1
    # Early on none, where most of the last ones are on the front, and after the start, which was not chosen by means.
    assert not any(tactic._unsure(~missed[:n], batch) for n in range(20, 100))
    assert tactic._unsure(missed[:10], batch) == 0
    assert tactic._unsure(np.concatenate([missed[:10], ~missed[:1]]), batch) == 0


def test_misses_are_counted_from_the_last_network_on_the_front():
    on_front = np.array([False, True, False, True, False, False])
    assert [ehvi._since_last(on_front[:n]) for n in range(7)] == [0, 0, 0, 1, 0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_start_has_networks_of_all_sizes(seed):
    space = SearchSpace((Gene("width", tuple(range(3000))),))
    sizes = np.asarray(ehvi._graded_architectures(space, jax.random.key(seed), 10))[:, 0] / 2999
    assert set(sizes[:2]) == {0, 1}
    # Ten random sizes leave such a gap in three of four draws, steps of the golden ratio none above .18.
    assert np.diff(np.sort(sizes)).max() < 0.2


@pytest.mark.parametrize(("objectives", "short"), [(2, 10), (3, 20), (4, 20)])
def test_a_shortlist_holds_the_best(monkeypatch, objectives, short):
    front, means, deviations, reference = case(objectives, pool=60)
    whole = choose(front, means, 0 * deviations, reference, 2)
    monkeypatch.setattr(ehvi, "SHORTLIST", short)
    numbers = jnp.arange(60, dtype=jnp.int32)[:, None]
    seen = jnp.zeros(60, bool).at[whole[0]].set(True)
    limits = ((-np.inf, np.inf),) * objectives
    more = jnp.concatenate([jnp.full((2, objectives), jnp.nan), front])

    def shortlist(seen):
        return ehvi._shortlist.__wrapped__(Candidates(numbers, means, (None,)), means, seen, more, reference, limits)

    few, _, fallback = shortlist(jnp.zeros(60, bool))
    rows = np.asarray(few.archs)[:, 0]
    assert len(rows) == short
    assert set(whole) <= set(rows.tolist())
    np.testing.assert_array_equal(few.features, means[rows])
    assert (np.asarray(fallback) <= 0).all()
    # Rows seen before come last; those that break a limit are behind all that keep it.
    assert whole[0] not in np.asarray(shortlist(seen)[0].archs)[:, 0]
    limits = ((float(np.median(means[:, 0])), np.inf), *limits[1:])
    kept = np.asarray(shortlist(jnp.zeros(60, bool))[0].archs)[:, 0]
    assert (np.asarray(means)[kept, 0] >= limits[0][0]).all()


def test_known_and_repeated_rows_are_found():
    rng = np.random.default_rng(0)
    known, pool = rng.integers(0, 3, (9, 3)), rng.integers(0, 3, (40, 3))
    found = ehvi._known_or_repeated(known, pool)
    for i, arch in enumerate(pool):
        assert found[i] == (arch.tolist() in known.tolist() + pool[:i].tolist())


def params(archs):
    return jnp.asarray(archs).sum(1).astype(jnp.float32)


def test_candidates_described_once_are_predicted_as_the_predictor_does():
    inputs, predictor = Inputs(SPACE), GaussianProcess(steps=2)
    unlimited = ((-np.inf, np.inf),) * 2
    problem = Problem(SPACE, 16, (None, params), NSGA2(population=16), predictor, FAR, unlimited, inputs)
    archs, new = (np.asarray(SPACE.sample(jax.random.key(seed), rows)) for seed, rows in ((0, 12), (1, 50)))
    state = Measured.empty(jax.random.key(0), problem).add(archs, np.stack([np.sin(archs.sum(1)), params(archs)], 1))
    models, _ = fit_predictors(state)
    predicted = prediction(problem)
    candidates = predicted.describe(None, new)
    means, deviations = predicted.normal(models, candidates)
    for got, wanted in zip((means, deviations), predictor.predict(inputs, models.columns[0], new), strict=True):
        np.testing.assert_allclose(got[:, 0], wanted, rtol=1e-5)
    np.testing.assert_array_equal(means[:, 1], params(new))
    np.testing.assert_array_equal(deviations[:, 1], 0)
    np.testing.assert_allclose(predicted.means(models, candidates), means, rtol=1e-6)
    few = jax.tree.map(lambda rows: rows[7:9], candidates)
    np.testing.assert_allclose(predicted.means(models, few), means[7:9], rtol=1e-5)
