"""Ridge regression against scikit-learn and against refits without each row in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference

from nasjax.predictors.ridge import Ridge
from nasjax.space import Gene, SearchSpace

SPACE = SearchSpace(
    (
        Gene("depth", (2, 3, 4)),
        *(Gene(f"width{i}", (3, 4, 6), ("depth", i + 1) if i > 1 else None) for i in range(4)),
        *(Gene(f"kernel{i}", (3, 5, 7), ("depth", i + 1) if i > 1 else None) for i in range(4)),
        Gene("act", ("relu", "swish", "gelu")),
    )
)


@pytest.fixture(autouse=True)
def strict_dtypes():
    with jax.numpy_dtype_promotion("strict"):
        yield


def data(number, seed=0, noise=0.3):
    archs = np.asarray(SPACE.sample(jax.random.key(seed), number))
    rng = np.random.default_rng(seed)
    features = np.asarray(SPACE.features(archs))
    values = 75 + features @ np.random.default_rng(99).normal(size=features.shape[1]) + noise * rng.normal(size=number)
    return archs, values.astype(np.float32)


def standardised(model, archs):
    return (np.asarray(SPACE.features(archs), np.float64) - np.asarray(model.centre)) / np.asarray(model.scale)


@pytest.mark.parametrize("number", [2, 5, 10, 40, 300])
def test_predictions_are_scikit_learns_at_the_chosen_penalty(number):
    archs, values = data(number)
    model = Ridge().fit(SPACE, archs, values)
    new, _ = data(50, seed=1)
    reference = Reference(alpha=float(model.penalty)).fit(standardised(model, archs), values.astype(np.float64))
    mean, _ = Ridge().predict(SPACE, model, new)
    np.testing.assert_allclose(mean, reference.predict(standardised(model, new)), atol=2e-3)


@pytest.mark.parametrize("number", [5, 15, 60])
def test_leave_one_out_errors_are_those_of_refits(number):
    archs, values = data(number, seed=number)
    ridge = Ridge(penalties=(0.1, 1.0, 10.0, 100.0))
    model = ridge.fit(SPACE, archs, values)
    inputs = standardised(model, archs)
    errors, others = [], {}
    for penalty in ridge.penalties:
        missed = []
        for i in range(number):
            rest = np.arange(number) != i
            refit = Reference(alpha=penalty).fit(inputs[rest], values[rest].astype(np.float64))
            missed.append(values[i] - refit.predict(inputs[i : i + 1])[0])
        errors.append(np.mean(np.square(missed)))
        others[penalty] = values - missed
    # With fewer rows than features float32 costs up to half a percent; near ties may then go either way.
    np.testing.assert_allclose(model.errors, errors, rtol=1e-2)
    chosen = int(np.argmin(np.abs(np.array(ridge.penalties) - float(model.penalty))))
    assert errors[chosen] <= 1.01 * min(errors)
    # Of a row that alone has some feature, float32 blurs the leverage.
    np.testing.assert_allclose(model.held_out, others[ridge.penalties[chosen]], atol=0.1 * errors[chosen] ** 0.5)


def test_the_deviation_is_that_of_the_posterior():
    archs, values = data(60)
    model = Ridge().fit(SPACE, archs, values)
    new, _ = data(20, seed=1)
    inputs, other, penalty = standardised(model, archs), standardised(model, new), float(model.penalty)
    target = values.astype(np.float64) - values.mean(dtype=np.float64)
    # The values' covariance, over the noise's variance, is the kernel's: I + Z Z' / penalty.
    noise = target @ np.linalg.solve(np.eye(60) + inputs @ inputs.T / penalty, target) / 59
    precision = inputs.T @ inputs + penalty * np.eye(inputs.shape[1])
    spread = (other * np.linalg.solve(precision, other.T).T).sum(axis=1)
    _, deviation = Ridge().predict(SPACE, model, new)
    np.testing.assert_allclose(deviation, np.sqrt(noise * (1 + 1 / 60 + spread)), rtol=2e-3)


def test_errors_are_about_as_large_as_the_deviation_says():
    archs, values = data(200, noise=1.0)
    model = Ridge().fit(SPACE, archs, values)
    new, truth = data(2000, seed=1, noise=1.0)
    mean, deviation = Ridge().predict(SPACE, model, new)
    assert 0.9 < np.std((truth - mean) / deviation) < 1.1


@pytest.mark.parametrize("number", [1, 3, 10, 60])
def test_padding_changes_nothing(number):
    archs, values = data(number)
    ridge = Ridge(penalties=(1.0,))  # One penalty: float32 sums of other lengths may decide near ties otherwise.
    alone = ridge.fit(SPACE, archs, values)
    # Padding of two kinds: rows that the mask leaves out, and rows that failed.
    junk, wrong = data(64 - number, seed=7)
    wrong = np.where(np.arange(64 - number) % 2, np.float32(np.nan), wrong * 100)
    mask = np.concatenate([np.ones(number, bool), np.isnan(wrong)])
    padded = ridge.fit(SPACE, np.concatenate([archs, junk]), np.concatenate([values, wrong]), mask)
    assert float(padded.penalty) == float(alone.penalty)
    new, _ = data(30, seed=1)
    for one, other in zip(ridge.predict(SPACE, padded, new), ridge.predict(SPACE, alone, new), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("number", [1, 2, 3, 10])
def test_constant_values_are_predicted_as_that_constant(number):
    archs, _ = data(number)
    model = Ridge().fit(SPACE, archs, np.full(number, 76.3, np.float32))
    mean, deviation = Ridge().predict(SPACE, model, data(30, seed=1)[0])
    np.testing.assert_allclose(mean, 76.3, rtol=1e-6)
    np.testing.assert_allclose(deviation, 0, atol=1e-3)


@pytest.mark.parametrize("number", [1, 2, 3, 5, 10])
def test_few_points_never_lead_far_beyond_what_was_seen(number):
    archs, values = data(number)
    mean, deviation = Ridge().predict(SPACE, Ridge().fit(SPACE, archs, values), data(200, seed=1)[0])
    reach = np.ptp(values)
    assert (mean >= values.min() - reach - 1e-3).all() and (mean <= values.max() + reach + 1e-3).all()
    assert np.isfinite(deviation).all()


def test_no_values_at_all_give_a_finite_model():
    archs, _ = data(4)
    model = Ridge().fit(SPACE, archs, np.full(4, np.nan, np.float32))
    mean, deviation = Ridge().predict(SPACE, model, archs)
    assert np.isfinite(mean).all() and np.isfinite(deviation).all()


def test_a_space_without_a_choice_predicts_the_mean():
    space = SearchSpace((Gene("only", (1,)),))
    model = Ridge().fit(space, np.zeros((2, 1), np.int32), np.array([1.0, 3.0], np.float32))
    mean, _ = Ridge().predict(space, model, np.zeros((1, 1), np.int32))
    np.testing.assert_allclose(mean, 2.0)


def test_vmap_equals_a_loop():
    archs, values = data(24)
    many = jnp.stack([values, values**2 / 100, -values])
    models = jax.vmap(lambda one: Ridge().fit(SPACE, archs, one))(many)
    for i in range(3):
        one = Ridge().fit(SPACE, archs, many[i])
        expected = Ridge().predict(SPACE, one, archs)
        got = Ridge().predict(SPACE, jax.tree.map(lambda leaf, i=i: leaf[i], models), archs)
        for x, y in zip(got, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3)
