"""Expected hypervolume improvement against Monte Carlo and brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from nasjax.pareto import hypervolume_exact
from nasjax.tactics import improvement


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


def case(objectives, rows=12, pool=30, seed=0):
    """Front, means and deviations of a pool, and the reference."""
    rng = np.random.default_rng(seed)
    front, means = rng.random((rows, objectives)), rng.random((pool, objectives))
    deviations = 0.1 * rng.random((pool, objectives))
    return [jnp.asarray(a, jnp.float32) for a in (front, means, deviations, np.full(objectives, 1.1))]


def choose(front, means, deviations, reference, batch, feasible=1.0, excluded=False, fallback=0.0, most=None):
    rows = len(means)
    return np.asarray(
        improvement.choose(
            front,
            means,
            deviations,
            jnp.broadcast_to(jnp.asarray(feasible, jnp.float32), rows),
            jnp.broadcast_to(jnp.asarray(excluded), rows),
            reference,
            jnp.broadcast_to(jnp.asarray(fallback, jnp.float32), rows),
            batch,
            most or batch,
        )
    ).tolist()


@pytest.mark.parametrize("objectives", [1, 2])
def test_one_and_two_objectives_are_exact(objectives):
    front, means, deviations, reference = case(objectives)
    gain, _, state = {1: improvement._one_objective, 2: improvement._two_objectives}[objectives](
        front, means, deviations, reference
    )
    before = hypervolume_exact(front, reference)
    rng = np.random.default_rng(1)
    for row in range(6):
        draws = np.asarray(means[row]) + np.asarray(deviations[row]) * rng.standard_normal((400, objectives))
        gains = [hypervolume_exact(np.concatenate([front, draw[None]]), reference) - before for draw in draws]
        error = np.std(gains) / np.sqrt(len(gains))
        assert float(gain(state)[row]) == pytest.approx(np.mean(gains), abs=4 * error + 1e-6)


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_gain_of_a_certain_candidate_is_a_difference_of_hypervolumes(objectives):
    """Rows and candidates beyond the reference, ties and candidates on the front among them."""
    rng = np.random.default_rng(objectives)
    front = rng.integers(0, 12, (20, objectives)).astype(np.float32)
    points = np.concatenate([rng.integers(-2, 12, (30, objectives)), front[:2]]).astype(np.float32)
    reference = np.full(objectives, 9.0, np.float32)
    improve = improvement._EXACT[objectives]
    gain, _, state = improve(
        *map(jnp.asarray, (np.minimum(front, reference), points, np.full_like(points, 1e-9), reference))
    )
    before = hypervolume_exact(front, reference)
    after = np.array([hypervolume_exact(np.concatenate([front, point[None]]), reference) for point in points])
    np.testing.assert_allclose(gain(state), after - before, atol=1e-3)
    assert (after > before).sum() > 3


@pytest.mark.parametrize("objectives", [3, 4])
def test_rays_approximate_the_gain_of_a_certain_candidate(objectives):
    front, means, _, reference = case(objectives)
    gain, _, state = improvement._ray_approximation(front, means, jnp.full(means.shape, 1e-9), reference)
    found = np.asarray(gain(state))
    before = hypervolume_exact(front, reference)
    true = np.array([hypervolume_exact(np.concatenate([front, mean[None]]), reference) - before for mean in means])
    np.testing.assert_array_equal(found[true == 0], 0)
    assert np.corrcoef(found, true)[0, 1] > 0.97
    assert true[np.argmax(found)] >= 0.8 * true.max()


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_a_batch_of_certain_candidates_is_the_greedy_one(objectives):
    front, means, deviations, reference = case(objectives)
    chosen = choose(front, means, 0 * deviations, reference, 4)
    assert len(set(chosen)) == 4
    volumes, now = [], np.asarray(front)
    for row in chosen:
        every = [hypervolume_exact(np.concatenate([now, mean[None]]), reference) for mean in np.asarray(means)]
        now = np.concatenate([now, np.asarray(means[row])[None]])
        volumes.append((hypervolume_exact(now, reference), max(every)))
    for got, best in volumes:
        assert got >= best * (1 - (0.01 if objectives > 2 else 1e-5))


def test_a_front_that_is_padded_or_beyond_the_reference_changes_nothing():
    front, means, deviations, reference = case(2)
    more = jnp.concatenate([jnp.full((3, 2), jnp.nan), front, jnp.array([[0.0, 2.0]])])
    whole = choose(front, means, deviations, reference, 5)
    assert choose(more, means, deviations, reference, 5) == whole
    assert choose(front, means, deviations, reference, 3, most=5) == [*whole[:3], -1, -1]


def test_infeasible_and_measured_candidates_are_not_selected():
    front, means, deviations, reference = case(2)
    best = choose(front, means, deviations, reference, 1)[0]
    others = jnp.arange(len(means)) != best
    assert best not in choose(front, means, deviations, reference, 20, feasible=others)
    chosen = choose(front, means, deviations, reference, len(means) - 1, excluded=~others)
    assert sorted(chosen) == np.flatnonzero(others).tolist()


def test_where_gains_underflow_their_logarithm_falls_with_the_deviations_behind_the_front():
    """Against the expected improvement of two objectives in float64, of candidates 14 to 30 deviations behind."""
    rng = np.random.default_rng(0)
    front = np.stack([np.linspace(0.1, 0.9, 6), np.linspace(0.9, 0.1, 6) ** 1.5], 1)
    means = front[rng.integers(0, 6, 200)] + rng.uniform(0.2, 0.4, (200, 2))
    deviations, reference = rng.uniform(0.008, 0.014, (200, 2)), np.full(2, 1.5)

    def expected(levels, column):
        z = (levels[None] - means[:, column, None]) / deviations[:, column, None]
        return np.maximum(deviations[:, column, None] * (z * norm.cdf(z) + norm.pdf(z)), 1e-320)

    edges, steps = np.append(front[:, 0], reference[0]), np.append(reference[1], front[:, 1])
    gains = (np.diff(expected(edges, 0), axis=1, prepend=0) * expected(steps, 1)).sum(1)
    assert (gains.astype(np.float32) == 0).mean() > 0.9 and (gains > 0).all()
    arrays = (jnp.asarray(a, jnp.float32) for a in (front, means, reference, deviations))
    assert spearmanr(np.asarray(improvement.lead_over_front(*arrays)), np.log(gains)).statistic > 0.8


def test_without_any_gain_the_greatest_fallback_is_selected():
    _, means, deviations, reference = case(2)
    fallback = -jnp.arange(len(means), dtype=jnp.float32)
    assert choose(jnp.zeros((1, 2)), means, 0 * deviations, reference, 3, fallback=fallback) == [0, 1, 2]
