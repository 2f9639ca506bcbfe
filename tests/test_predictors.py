"""Properties of every predictor, and each model against its definition."""

import dataclasses
from itertools import combinations

import jax
import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.svm import SVR as Reference
from test_ridge import SPACE, data

from nasjax.predictors import MLP, PREDICTORS, SVR, Auto, GaussianProcess, Inputs, Stacked, errors
from nasjax.predictors.bases import BASES, _fit_base, fit_bases

ROOM = 128
"""One size for all: nothing compiles twice."""


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


SLOW = ("auto", "mlp", "stacked")
"""What fits several models, or compiles long; auto and stacked have quick tests of their own below."""


@pytest.fixture(params=[pytest.param(p, marks=pytest.mark.slow if p in SLOW else ()) for p in PREDICTORS])
def predictor(request):
    return PREDICTORS[request.param]()


def padded(archs, values, junk=False):
    """To ROOM: with NaN, or with wrong values that the mask leaves out."""
    archs, values = archs[:ROOM], values[:ROOM].astype(np.float32)
    rest = ROOM - len(values)
    others, wrong = data(ROOM, seed=7) if junk else (np.zeros((ROOM, archs.shape[1]), np.int32), np.full(ROOM, np.nan))
    mask = np.arange(ROOM) < len(values)
    return np.concatenate([archs, others[:rest]]), np.concatenate([values, 100 * wrong[:rest].astype(np.float32)]), mask


def test_it_learns_a_sum_of_effects(predictor):
    model = predictor.fit(SPACE, *padded(*data(120, noise=0.1)))
    new, truth = data(ROOM, seed=1, noise=0.0)
    mean, deviation = predictor.predict(SPACE, model, new)
    assert np.corrcoef(mean, truth)[0, 1] > 0.98
    assert (np.asarray(deviation) > 0).all()


def test_held_out_errors_are_those_of_new_architectures(predictor):
    archs, values, mask = padded(*data(120, noise=0.5))
    model = predictor.fit(SPACE, archs, values, mask)
    held_out = np.asarray(model.held_out)
    assert held_out.shape == (ROOM,) and held_out.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(held_out), mask)
    new, truth = data(ROOM, seed=1, noise=0.5)
    found = errors(truth, predictor.predict(SPACE, model, new)[0]).rmse
    assert 0.7 * found < errors(values, held_out).rmse < 1.7 * found


def test_of_pure_noise_nothing_is_predicted(predictor):
    """A model that has seen the rows it is asked for would seem to know them."""
    archs, _ = data(120)
    noise = np.random.default_rng(3).normal(size=120).astype(np.float32)
    archs, values, mask = padded(archs, noise)
    report = errors(values, predictor.fit(SPACE, archs, values, mask).held_out)
    assert report.rows == 120 and report.rmse > 0.9 * noise.std() and report.tau < 0.2


def test_invalid_rows_change_nothing(predictor):
    archs, values = data(40)
    new, _ = data(ROOM, seed=1)
    one, other = (predictor.fit(SPACE, *padded(archs, values, junk)) for junk in (False, True))
    for x, y in zip(predictor.predict(SPACE, one, new), predictor.predict(SPACE, other, new), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(one.held_out, other.held_out, rtol=1e-3)


def test_predictions_compile_once_as_the_archive_grows(predictor):
    models = [predictor.fit(SPACE, *padded(*data(number))) for number in (30, 50, 70)]
    kinds = {jax.tree.structure(model) for model in models}

    @jax.jit
    def inside(model, archs):
        return predictor.predict(SPACE, model, archs)[0]

    new, _ = data(ROOM, seed=1)
    for model in models:
        inside(model, new)
    assert inside._cache_size() == len(kinds) and (len(kinds) == 1 or isinstance(predictor, Auto))


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_few_or_equal_values_give_finite_predictions(predictor, number):
    archs, values = data(number)
    new, _ = data(ROOM, seed=1)
    for some in (values, np.full(number, 76.3, np.float32)):
        model = predictor.fit(SPACE, *padded(archs, some))
        mean, deviation = predictor.predict(SPACE, model, new)
        assert np.isfinite(mean).all() and np.isfinite(deviation).all()
        assert np.isfinite(model.held_out).sum() == (number if number > 1 else 0)
    np.testing.assert_allclose(mean, 76.3 if number else 0, rtol=1e-3, atol=1e-4)


def test_scale_and_sign_of_the_values_do_not_matter(predictor):
    """Accuracy in per cent and error as a share are one quantity, up to what is mirrored."""
    archs, values, mask = padded(*data(60))
    new, _ = data(ROOM, seed=1)
    one = predictor.predict(SPACE, predictor.fit(SPACE, archs, values, mask), new)
    other = predictor.predict(SPACE, predictor.fit(SPACE, archs, 1 - values / 100, mask), new)
    spread = values[mask].std()
    # A start of networks from random numbers has no mirror image.
    far = 0.2 if isinstance(predictor, MLP) else 0.04
    np.testing.assert_allclose(100 * (1 - other[0]), one[0], atol=far * spread)


def test_predictors_are_settings_that_can_be_keys(predictor):
    assert dataclasses.is_dataclass(predictor) and hash(predictor) == hash(type(predictor)())


# -- errors ---------------------------------------------------------------------------------------------------------------


def test_errors_by_their_definitions():
    rng = np.random.default_rng(0)
    values, found = rng.integers(1, 9, 30).astype(float), rng.integers(1, 9, 30).astype(float)
    report = errors(np.append(values, [5, np.nan]), np.append(found, [np.nan, 5]))
    pairs = list(combinations(range(30), 2))
    signs = np.array([(np.sign(values[i] - values[j]), np.sign(found[i] - found[j])) for i, j in pairs])
    tau = (signs[:, 0] * signs[:, 1]).sum() / np.sqrt((signs[:, 0] != 0).sum() * (signs[:, 1] != 0).sum())
    assert report.rows == 30
    np.testing.assert_allclose(report.tau, tau)
    np.testing.assert_allclose(report.mape, 100 * np.mean([abs(f - v) / v for f, v in zip(found, values, strict=True)]))
    np.testing.assert_allclose(report.rmse, np.mean([(f - v) ** 2 for f, v in zip(found, values, strict=True)]) ** 0.5)


@pytest.mark.parametrize(("rows", "levels"), [(2, 2), (40, 3), (256, 1000), (257, 5), (600, 40)])
def test_tau_is_that_of_scipy_with_ties(rows, levels):
    first, second = np.random.default_rng(rows).integers(levels, size=(2, rows)).astype(float)
    second = first + second
    assert errors(first, second).tau == pytest.approx(kendalltau(first, second).statistic, abs=1e-12, nan_ok=True)
    assert np.isnan(errors(first, np.ones(rows)).tau)


def test_errors_of_no_row_or_one():
    nothing = errors(np.array([np.nan, 1.0]), np.array([1.0, np.nan]))
    assert nothing.rows == 0 and np.isnan([nothing.mape, nothing.rmse, nothing.tau]).all()
    one = errors(np.array([2.0]), np.array([3.0]))
    assert (one.rows, one.mape, one.rmse) == (1, 50.0, 1.0) and np.isnan(one.tau)
    assert errors(np.array([0.0, 2.0]), np.array([1.0, 1.0])).mape == 50.0


def test_errors_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\).*\(3,\)"):
        errors(np.zeros(2), np.zeros(3))


# -- one by one -----------------------------------------------------------------------------------------------------------


def test_the_vector_machine_is_scikit_learns():
    archs, values, mask = padded(*data(60))
    model = SVR().fit(SPACE, archs, values, mask)
    new, _ = data(ROOM, seed=1)

    def prepared(archs):
        return (np.asarray(SPACE.features(archs)) - np.asarray(model.centre)) / np.asarray(model.scale)

    reference = Reference(gamma=float(model.gamma), C=float(model.penalty), epsilon=0.01, tol=1e-2)
    reference.fit(prepared(archs[:60]), (values[:60] - float(model.mean)) / float(model.unit))
    expected = float(model.mean) + float(model.unit) * reference.predict(prepared(new))
    np.testing.assert_allclose(SVR().predict(SPACE, model, new)[0], expected, atol=0.03)
    np.testing.assert_allclose(model.deviation, errors(values, model.held_out).rmse, rtol=1e-4)


def test_each_network_is_trained_without_its_held_out_rows():
    archs, values, mask = padded(*data(60))
    model = MLP(steps=20).fit(SPACE, archs, values, mask)
    # Two rows that member 3 leaves out, changed so that mean and variance stay: its predictions of them stay too.
    changed = values.copy()
    changed[3], changed[11] = values[11], values[3]
    other = MLP(steps=20).fit(SPACE, archs, changed, mask)
    np.testing.assert_allclose(other.held_out[3::8], model.held_out[3::8], rtol=1e-5)
    assert np.abs(np.asarray(other.held_out - model.held_out))[:60].max() > 1e-3


def test_the_stack_is_at_least_as_good_as_its_best_predictor():
    archs, values, mask = padded(*data(120, noise=0.5))
    model = Stacked().fit(SPACE, archs, values, mask)
    assert list(model.models) == sorted(BASES) and (np.asarray(model.weights) >= 0).all()
    parts = [errors(values, part.held_out).rmse for part in model.models.values()]
    assert errors(values, model.held_out).rmse < 1.03 * min(parts)
    np.testing.assert_allclose(model.weights.sum(), 1, atol=0.1)


def test_auto_selects_the_base_with_the_least_held_out_error():
    archs, values, mask = padded(*data(120))
    models = fit_bases(SPACE, archs, values, mask)
    assert set(models) == set(BASES)
    chosen = Auto().fit(SPACE, archs, values, mask)
    assert chosen.chosen == min(models, key=lambda name: errors(values, models[name].held_out).rmse)
    assert set(fit_bases(SPACE, *padded(*data(5)))) == {"ridge", "gaussian_process"}
    assert set(fit_bases(SPACE, *padded(*data(0)))) == {"ridge"}


def test_padding_for_a_large_budget_costs_nothing():
    """A Gaussian process on few rows of many is that of these rows, its held-out predictions in their places."""
    archs, values = data(40)
    where = np.sort(np.random.default_rng(0).permutation(2048)[:40])
    many, wide = np.zeros((2048, archs.shape[1]), np.int32), np.full(2048, np.nan, np.float32)
    many[where], wide[where] = archs, values
    model = _fit_base(BASES["gaussian_process"], SPACE, many, wide, ~np.isnan(wide))
    assert len(model.weights) == GaussianProcess.max_rows
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(model.held_out)), where)
    few = GaussianProcess().fit(SPACE, *padded(archs, values))
    np.testing.assert_allclose(np.asarray(model.held_out)[where], few.held_out[:40], rtol=1e-3)


def test_each_option_of_an_unordered_gene_is_a_feature_group():
    inputs = Inputs(SPACE)
    genes = [SPACE.names[i] for i in SPACE._feature_columns[0]]
    by_gene = {name: {f for g, f in zip(genes, inputs.feature_groups, strict=True) if g == name} for name in genes}
    assert len(by_gene["act"]) == 3 and all(len(found) == 1 for name, found in by_gene.items() if name != "act")
    assert by_gene["width0"] == by_gene["width3"] != by_gene["kernel0"]
    assert len(inputs.feature_groups) == SPACE.features(data(1)[0]).shape[1]
    assert set(inputs.feature_groups) == set(range(max(inputs.feature_groups) + 1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SVR(penalties=()), "predictor.penalties must be numbers above 0"),
        (lambda: SVR(gammas=(0.0,)), "predictor.gammas must be numbers above 0"),
        (lambda: SVR(epsilon=-1.0), "predictor.epsilon must be at least 0"),
        (lambda: SVR(folds=1), "predictor.folds must be at least 2"),
        (lambda: MLP(members=1), "predictor.members must be at least 2"),
        (lambda: MLP(hidden=0), "predictor.hidden must be at least 1"),
        (lambda: MLP(steps=0), "predictor.steps must be at least 1"),
        (lambda: MLP(rate=0.0), "predictor.rate must be above 0"),
        (lambda: MLP(decay=-1.0), "predictor.decay must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
