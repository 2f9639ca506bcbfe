"""The Gaussian process against its formulas in float64, and what groups and exact costs bring."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau, skew
from test_ridge import SPACE, data

from nasjax.predictors import GaussianProcess, Inputs, Ridge, gaussian_process

PROCESS = GaussianProcess(steps=30)


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


def by_formula(model, inputs, archs, new):
    """Posterior mean and deviation of the model's hyperparameters, entry by entry, by inversion."""
    groups = np.array(Inputs(inputs).feature_groups)
    linear, length = (np.exp(np.asarray(part, np.float64)) for part in (model.hyper.linear, model.hyper.length))
    rbf, noise = np.exp(float(model.hyper.rbf)), np.exp(float(model.hyper.noise)) + 1e-4

    def prepared(archs):
        centred = np.asarray(inputs.features(archs), np.float64) - np.asarray(model.centre, np.float64)
        return centred / np.asarray(model.scale, np.float64)

    def kernel(one, other):
        return sum(linear[f] * a * b for f, a, b in zip(groups, one, other, strict=True)) + rbf * np.exp(
            -sum(((a - b) / length[f]) ** 2 for f, a, b in zip(groups, one, other, strict=True)) / 2
        )

    rows, columns = prepared(archs), prepared(new)
    inverse = np.linalg.inv([[kernel(a, b) for b in rows] for a in rows] + noise * np.eye(len(rows)))
    across = np.array([[kernel(a, b) for b in rows] for a in columns])
    alone = np.array([kernel(a, a) for a in columns])
    return across, inverse, np.sqrt(alone - ((across @ inverse) * across).sum(1))


def warping(model):
    """The warping of the values and its inverse, in float64."""
    strength, centre, mean, unit = (float(part) for part in model.warp)
    median, spread = float(model.median), float(model.spread)

    def warped(values):
        scaled = (values.astype(np.float64) - median) / spread
        return (np.arcsinh(strength * (scaled - centre)) / strength - mean) / unit

    def unwarped(warped):
        return median + spread * (centre + np.sinh(strength * (mean + unit * warped)) / strength)

    return warped, unwarped


def test_predictions_are_those_of_the_formulas():
    archs, values = data(25)
    new, _ = data(12, seed=1)
    model = PROCESS.fit(SPACE, archs, values)
    mean, deviation = PROCESS.predict(SPACE, model, new)
    across, inverse, expected = by_formula(model, SPACE, archs, new)
    warped, unwarped = warping(model)
    known = warped(values)
    np.testing.assert_allclose([known.mean(), known.std()], [0, 1], atol=1e-4)
    inner = across @ inverse @ known
    np.testing.assert_allclose(mean, unwarped(inner), rtol=1e-4)
    slope = (unwarped(inner + 1e-4) - unwarped(inner - 1e-4)) / 2e-4
    np.testing.assert_allclose(deviation, slope * expected, rtol=2e-2, atol=2e-3)


def test_held_out_predictions_are_those_of_refits_without_the_row():
    archs, values = data(25)
    model = PROCESS.fit(SPACE, archs, values)
    _, inverse, _ = by_formula(model, SPACE, archs, archs[:1])
    warped, unwarped = warping(model)
    covariance, known = np.linalg.inv(inverse), warped(values)
    expected = []
    for i in range(25):
        rest = np.arange(25) != i
        expected.append(covariance[i, rest] @ np.linalg.solve(covariance[np.ix_(rest, rest)], known[rest]))
    np.testing.assert_allclose(model.held_out, unwarped(np.array(expected)), rtol=1e-3)


def test_networks_that_failed_to_learn_do_not_spoil_the_others():
    """One in eight at 10 %: warped, the others are told apart nearly as well as without them; plain values stay unwarped."""
    archs, values = data(160, noise=0.0)
    new, truth = data(200, seed=1, noise=0.0)
    process = GaussianProcess()
    spoilt = np.where(np.arange(160) % 8 == 0, np.float32(10), values)
    plain, warped = process.fit(SPACE, archs, values), process.fit(SPACE, archs, spoilt)
    assert float(warped.warp.strength) > 2 * float(plain.warp.strength)
    mean, _ = process.predict(SPACE, warped, new)
    by_ridge, _ = Ridge().predict(SPACE, Ridge().fit(SPACE, archs, spoilt), new)
    assert np.corrcoef(mean, truth)[0, 1] > np.corrcoef(by_ridge, truth)[0, 1] + 0.05


@pytest.mark.parametrize("number", [3])
def test_padding_changes_nothing(number):
    archs, values = data(number)
    alone = PROCESS.fit(SPACE, archs, values)
    junk, wrong = data(64 - number, seed=7)
    wrong = np.where(np.arange(64 - number) % 2, np.float32(np.nan), wrong * 100)
    mask = np.concatenate([np.ones(number, bool), np.isnan(wrong)])
    padded = PROCESS.fit(SPACE, np.concatenate([archs, junk]), np.concatenate([values, wrong]), mask)
    new, _ = data(30, seed=1)
    for one, other in zip(PROCESS.predict(SPACE, padded, new), PROCESS.predict(SPACE, alone, new), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-2)


def test_what_is_known_is_certain_and_what_is_far_is_not():
    archs, values = data(60, noise=0.0)
    model = PROCESS.fit(SPACE, archs, values)
    mean, known = PROCESS.predict(SPACE, model, archs)
    _, unknown = PROCESS.predict(SPACE, model, data(60, seed=3)[0])
    np.testing.assert_allclose(mean, values, atol=0.2)
    assert np.median(known) < np.median(unknown)


def test_errors_are_about_as_large_as_the_deviation_says():
    archs, values = data(100, noise=0.5)
    new, truth = data(1000, seed=1, noise=0.0)
    mean, deviation = GaussianProcess().predict(SPACE, GaussianProcess().fit(SPACE, archs, values), new)
    assert 0.5 < np.std((truth - mean) / deviation) < 2


def test_it_fits_interactions_that_ridge_cannot():
    """Values that depend on a product of genes."""
    archs, new = data(150)[0], data(300, seed=1)[0]

    def product(archs):
        words = [SPACE.decode(arch) for arch in archs]
        return np.array([word["depth"] * word["width0"] + 3 * (word["kernel0"] == word["kernel1"]) for word in words], float)

    errors = {}
    for predictor in (GaussianProcess(), Ridge()):
        mean, _ = predictor.predict(SPACE, predictor.fit(SPACE, archs, product(archs)), new)
        errors[type(predictor)] = np.abs(np.asarray(mean) - product(new)).mean()
    assert errors[GaussianProcess] < 0.7 * errors[Ridge]


def test_exact_costs_are_read_as_logarithms_in_all_and_by_part():
    def parts(archs):
        return 1.0 + jnp.asarray(archs)[:, :2].astype(jnp.float32)

    inputs = Inputs(SPACE, parts)
    archs, _ = data(5)
    found = np.asarray(inputs.features(archs))
    number = SPACE.features(archs).shape[1]
    np.testing.assert_array_equal(found[:, :number], SPACE.features(archs))
    np.testing.assert_allclose(found[:, number], np.log(2.0 + archs[:, :2].sum(1)), rtol=1e-6)
    np.testing.assert_allclose(found[:, number + 1 :], np.log(2.0 + archs[:, :2]), rtol=1e-6)
    groups = Inputs(SPACE).feature_groups
    first = max(groups) + 1
    assert inputs.feature_groups == (*groups, first, first + 1, first + 1)


def test_feature_groups_are_genes_whose_names_differ_in_digits_alone():
    columns = SPACE._feature_columns[0]
    stems = [SPACE.names[i].rstrip("0123456789") for i in columns]
    assert [sorted(set(stems), key=stems.index).index(stem) for stem in stems] == list(SPACE.feature_groups)
    assert max(SPACE.feature_groups) == 3


def test_many_rows_are_all_conditioned_on():
    """Hyperparameters come from a part of the rows, predictions from all."""
    archs, values = data(400, noise=0.0)
    few = GaussianProcess(steps=30, rows=64)
    mean, _ = few.predict(SPACE, few.fit(SPACE, archs, values), archs)
    assert np.abs(np.asarray(mean) - values).mean() < 0.1


SKEWED = {"scores": lambda u: 1 - 0.1 * np.exp(-1.3 * u), "latencies": lambda u: np.exp(1.3 * u)}


@pytest.mark.parametrize("bent", SKEWED.values(), ids=SKEWED)
def test_skewed_values_are_ranked_where_they_crowd(bent):
    """Scores of which most lie within .1 and a few far below (skew -4), and latencies with a long tail."""
    archs, new = (np.asarray(SPACE.sample(jax.random.key(seed), rows)) for seed, rows in ((0, 80), (1, 400)))
    weights = np.random.default_rng(0).normal(size=SPACE.features(new).shape[1])
    sums, others = (np.asarray(SPACE.features(a)) @ weights for a in (archs, new))
    known, true = (bent((each - others.mean()) / others.std()).astype(np.float32) for each in (sums, others))
    assert abs(skew(true)) > 2.5
    mean, _ = PROCESS.predict(SPACE, PROCESS.fit(SPACE, archs, known), new)
    crowded = np.argsort(np.abs(true - np.median(true)))[:200]
    assert kendalltau(np.asarray(mean)[crowded], true[crowded]).statistic > 0.9


MODES = {
    "a slow path that a choice takes": lambda u, chosen: np.exp(0.3 * u) + 4 * chosen,
    "a path six times as slow": lambda u, chosen: np.exp(0.5 * u) * (1 + 5 * chosen),
    "a cliff": lambda u, _: 0.2 * u + 3 * (u > 0.3),
    "plateaus": lambda u, _: np.round(np.clip(u, -0.5, 1.5) * 2) / 2 + 0.02 * u,
}


def test_latencies_with_modes_cliffs_and_plateaus_are_ranked_no_worse_than_without_warping(monkeypatch):
    archs, new = (np.asarray(SPACE.sample(jax.random.key(seed), rows)) for seed, rows in ((0, 100), (99, 400)))
    weights = np.random.default_rng(0).normal(size=SPACE.features(new).shape[1])
    sums, others = (np.asarray(SPACE.features(a)) @ weights for a in (archs, new))
    known, true = ((each - others.mean()) / others.std() for each in (sums, others))
    paths = [(a[:, 0] + a[:, 1]) % 2 for a in (archs, new)]  # A choice of two genes together.

    def taus(process):
        found = {}
        for name, bent in MODES.items():
            values, wanted = bent(known, paths[0]).astype(np.float32), bent(true, paths[1])
            mean, _ = process.predict(SPACE, process.fit(SPACE, archs, values), new)
            found[name] = kendalltau(np.asarray(mean), wanted).statistic
        return found

    warped, warp = taus(PROCESS), gaussian_process._warp_values
    plain = lambda hyper, *arrays: warp(hyper._replace(warp=hyper.warp * 0 - 8), *arrays)  # noqa: E731
    monkeypatch.setattr(gaussian_process, "_warp_values", plain)
    unwarped = taus(replace(PROCESS, rows=127))  # Other settings, so that nothing compiled with warping is used again.
    assert min(warped.values()) > 0.8
    assert all(warped[name] > unwarped[name] - 0.02 for name in MODES)
    assert warped["a path six times as slow"] > unwarped["a path six times as slow"] + 0.1
