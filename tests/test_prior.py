"""What an earlier search measured, or a proxy scores, helps to predict as far as it agrees, and else costs little."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau
from test_ridge import SPACE

from nasjax.algorithms import NSGA2
from nasjax.generators import result_of
from nasjax.predictors import PREDICTORS, GaussianProcess, Inputs, Ridge
from nasjax.searches.proxy_scores import with_proxies
from nasjax.tactics import Concurrent, Measured, Problem, Reduced, Warm, restrict
from nasjax.tactics.predicting import fit_predictors, prediction
from nasjax.tactics.priors import MIN_PRIOR_ROWS, with_prior

UNLIMITED = ((-np.inf, np.inf),) * 2


def device(seed):
    """Values of many genes, a little bent: more than few measurements show."""
    features = SPACE.features(SPACE.largest()[None]).shape[1]
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(features, 6)), rng.normal(size=6)

    def measure(archs):
        return np.tanh(np.asarray(SPACE.features(archs)) @ first / 8) @ second

    return measure


def params(archs):
    return jnp.asarray(archs).sum(1).astype(jnp.float32)


def problem(predictor, earlier, rows=100):
    """One value measured, one computed; an earlier search knows `rows` of the first by `earlier`."""
    archs = np.asarray(SPACE.sample(jax.random.key(5), rows))
    warm = Warm(archs, np.stack([earlier(archs), params(archs)], 1))
    reference, algorithm = np.array([9.0, 99.0]), NSGA2(population=16)
    return Problem(SPACE, 16, (None, params), algorithm, predictor, reference, UNLIMITED, Inputs(SPACE), warm=warm)


def means_of(problem, models, archs):
    predicted = prediction(problem)
    return predicted.means(models, predicted.describe(models.prior, archs))


def rank_correlation(problem, measure, number=16):
    """Of predictions after `number` measurements, with the truth."""
    archs, new = (np.asarray(SPACE.sample(jax.random.key(seed), rows)) for seed, rows in ((0, number), (1, 300)))
    state = Measured.empty(jax.random.key(0), problem)
    models, state = fit_predictors(state.add(archs, np.stack([measure(archs), params(archs)], 1)))
    assert [fit.column for fit in state.fits] == [0]
    means = means_of(problem, models, new)
    np.testing.assert_array_equal(means[:, 1], params(new))
    return kendalltau(means[:, 0], measure(new)).statistic


@pytest.mark.slow
@pytest.mark.parametrize("predictor", [Ridge(), GaussianProcess()], ids=["ridge", "gaussian_process"])
def test_agreeing_measurements_help_and_others_do_little_harm(predictor):
    measure, other = device(1), device(2)
    alike, against = (lambda archs: np.exp(measure(archs) / 3)), (lambda archs: 5 - measure(archs))
    alone = rank_correlation(problem(predictor, measure), measure)
    assert rank_correlation(with_prior(problem(predictor, alike)), measure) > alone + 0.1
    assert rank_correlation(with_prior(problem(predictor, against)), measure) > alone + 0.1
    assert rank_correlation(with_prior(problem(predictor, other)), measure) > alone - 0.05


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("auto", "stacked")]


@pytest.mark.parametrize("name", [name for name in PREDICTORS if name not in ("auto", "stacked")] + SLOW)
def test_every_predictor_reads_the_prior(name):
    measure = device(1)
    warm = with_prior(problem(PREDICTORS[name](), measure))
    archs = np.asarray(SPACE.sample(jax.random.key(3), 40))
    guesses = np.asarray(warm.inputs.features(archs))[:, -1]
    assert np.corrcoef(guesses, measure(archs))[0, 1] > 0.8
    assert rank_correlation(warm, measure) > 0.5


def test_a_prior_is_one_more_feature_group_and_absent_with_few_values():
    few, many = (with_prior(problem(Ridge(), device(1), rows)) for rows in (MIN_PRIOR_ROWS - 1, MIN_PRIOR_ROWS))
    assert few.inputs == Inputs(SPACE)
    groups = Inputs(SPACE).feature_groups
    assert many.inputs.feature_groups == (*groups, max(groups) + 1)
    archs = np.asarray(SPACE.sample(jax.random.key(3), 4))
    assert many.inputs.features(archs).shape == (4, len(many.inputs.feature_groups))


def proxied(proxies, names, **changes):
    """The problem of one measured value without a warm start, with scores by these proxies."""
    return result_of(with_proxies(replace(problem(Ridge(), device(1)), warm=None, proxies=proxies, **changes), names))


def test_predictors_rank_better_by_an_agreeing_proxy():
    measure = device(1)
    alone, better = proxied({}, ()), proxied({"like": lambda archs: np.exp(measure(archs) / 3)}, ("like",))
    assert rank_correlation(with_prior(better), measure) > rank_correlation(with_prior(alone), measure) + 0.1


def test_each_proxy_scores_distinct_networks_once_and_those_of_a_reduced_space_stay():
    known = {"first": lambda archs: archs[:, 0] * 1.0, "odd": lambda archs: np.where(archs[:, 0] > 0, archs.sum(1), np.nan)}
    steps = list(with_proxies(replace(problem(Ridge(), device(1)), proxies=known), ("odd", "first")))
    found = proxied(known, ("odd", "first"))
    archs, values = found.scores
    assert len(np.unique(archs, axis=0)) == len(archs) > 100
    np.testing.assert_array_equal(values, np.stack([known["odd"](archs), archs[:, 0]], 1))
    assert [step.done for step in steps][-1] == steps[0].planned == 2 * len(archs)
    part = Reduced(SPACE, tuple((0,) if gene.name == "act" else tuple(range(len(gene.options))) for gene in SPACE.genes))
    inside = restrict(found, part).scores
    kept = part.to_reduced(archs)[1]
    assert 20 < kept.sum() < 80
    np.testing.assert_array_equal(inside.values, values[kept])


def test_an_unknown_proxy_is_refused_before_anything_is_scored():
    def fails(archs):
        raise AssertionError("scored")

    with pytest.raises(ValueError, match=r"proxies=depth is unknown for this super-network; allowed: synflow$"):
        proxied({"synflow": fails}, ("synflow", "depth"))
    with pytest.raises(ValueError, match="allowed: none, because a table or a function has no networks to score"):
        proxied({}, ("synflow",))


def test_a_reduced_space_uses_the_values_measured_in_it():
    whole = problem(Ridge(), device(1))
    part = Reduced(SPACE, tuple((0,) if gene.name == "act" else tuple(range(len(gene.options))) for gene in SPACE.genes))
    inside = restrict(whole, part)
    assert 20 < len(inside.warm.archs) < 60
    state = Concurrent(population=8).init(jax.random.key(0), inside)
    assert state.problem.inputs.prior.inputs.space == inside.space
    assert rank_correlation_within(state, device(1), part) > 0.5


def rank_correlation_within(state, measure, part):
    archs, new = (np.asarray(state.problem.space.sample(jax.random.key(seed), rows)) for seed, rows in ((0, 16), (1, 200)))
    models, _ = fit_predictors(state.add(archs, np.stack([measure(part.to_full(archs)), params(archs)], 1)))
    return kendalltau(means_of(state.problem, models, new)[:, 0], measure(part.to_full(new))).statistic
