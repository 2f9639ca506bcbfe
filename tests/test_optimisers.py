"""Optimisers, schedules, averages, devices and parts of batches do what their papers say."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from test_training import SMALL, TRAINER
from tiny import close, easy_task

from nasjax.errors import ConfigError
from nasjax.training import PlainConfig, loop
from nasjax.training.loop import Training
from nasjax.training.optimisers import OPTIMISERS, SCHEDULES, Optimisation, begin, learning_rates, result, update

WEIGHTS = {"kernel": jnp.asarray([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.asarray([0.3, -0.1])}
GRADIENTS = [jax.tree.map(lambda leaf, i=i: jnp.sin(7.0 * i + 3.0 * leaf), WEIGHTS) for i in range(9)]


def run(settings, steps=9):
    """Weights after every step, and the last state."""
    rates = learning_rates(settings, len(GRADIENTS))
    weights, state, seen = WEIGHTS, begin(settings, WEIGHTS), []
    for gradient, rate in zip(GRADIENTS[:steps], rates, strict=False):
        weights, state = jax.jit(update, static_argnums=0)(settings, state, weights, gradient, rate)
        seen.append(weights)
    return seen, state


def test_adamw_is_optax_s_with_its_schedule():
    settings = Optimisation(learning_rate=0.1, weight_decay=0.2, warmup=0.25)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 9)
    optimiser = optax.adamw(schedule, weight_decay=0.2)
    weights, state = WEIGHTS, optimiser.init(WEIGHTS)
    for found, gradient in zip(run(settings)[0], GRADIENTS, strict=True):
        updates, state = optimiser.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        close(found, weights, 1e-6)


def test_sgd_by_hand():
    """Nesterov momentum; weight decay is added to the gradient, as in PyTorch."""
    settings = Optimisation(learning_rate=0.1, optimizer="sgd", weight_decay=0.2, schedule="constant", warmup=0.0)
    weight, trace = np.asarray(WEIGHTS["kernel"], np.float64), 0.0
    for found, gradient in zip(run(settings)[0], GRADIENTS, strict=True):
        gradient = np.asarray(gradient["kernel"]) + 0.2 * weight
        trace = gradient + 0.9 * trace
        weight = weight - 0.1 * (gradient + 0.9 * trace)
        np.testing.assert_allclose(found["kernel"], weight, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_descends(name):
    settings = Optimisation(learning_rate=0.05, optimizer=name, schedule="constant", warmup=0.0)
    weights, state = WEIGHTS, begin(settings, WEIGHTS)
    step = jax.jit(update, static_argnums=0)
    for _ in range(100):
        weights, state = step(
            settings, state, weights, jax.tree.map(lambda leaf: 2 * (leaf - 1), weights), jnp.float32(0.05)
        )
    far = [np.abs(np.asarray(tree["kernel"]) - 1).max() for tree in (WEIGHTS, weights)]
    assert far[1] < 0.5 * far[0]


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_rise_through_the_warm_up_and_fall_to_their_end(name):
    rates = learning_rates(Optimisation(learning_rate=0.5, schedule=name, warmup=0.1), 100)
    assert rates[0] == 0 and rates[10] == pytest.approx(0.5) and (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) <= 1e-7).all()
    assert rates[-1] == pytest.approx(0.5 if name == "constant" else 0, abs=0.01)
    assert learning_rates(Optimisation(learning_rate=0.5, schedule=name, warmup=0.0), 4)[0] == pytest.approx(0.5)


def test_clipping_bounds_the_norm_and_leaves_small_gradients_alone():
    plain = Optimisation(learning_rate=1.0, optimizer="sgd", weight_decay=0.0, schedule="constant", warmup=0.0)
    norm = float(optax.global_norm(GRADIENTS[0]))
    small, large = (run(replace(plain, clip=clip), 1)[0][0] for clip in (2 * norm, norm / 4))
    close(small, run(plain, 1)[0][0], 0)
    moved = [jax.tree.map(jnp.subtract, WEIGHTS, weights) for weights in (small, large)]
    close(jax.tree.map(lambda leaf: leaf / 4, moved[0]), moved[1], 1e-6)


def test_decay_spares_vectors_on_request():
    still = [jax.tree.map(jnp.zeros_like, WEIGHTS)] * 2
    for spared in (False, True):
        settings = Optimisation(decay_vectors=not spared, weight_decay=0.5, schedule="constant", warmup=0.0)
        weights, _ = update(settings, begin(settings, WEIGHTS), WEIGHTS, still[0], jnp.float32(0.1))
        np.testing.assert_allclose(weights["kernel"], 0.95 * WEIGHTS["kernel"], rtol=1e-6)
        np.testing.assert_allclose(weights["bias"], (1.0 if spared else 0.95) * WEIGHTS["bias"], rtol=1e-6)


def test_the_moving_average_by_hand():
    seen, state = run(Optimisation(ema=0.8))
    average = np.asarray(WEIGHTS["kernel"], np.float64)
    for weights in seen:
        average = 0.8 * average + 0.2 * np.asarray(weights["kernel"])
    np.testing.assert_allclose(result(state, seen[-1])["kernel"], average, rtol=1e-5)
    close(seen, run(Optimisation())[0], 0)


def test_lookahead_by_hand():
    """Every third step fast weights go half-way back to the slow ones, which are the result."""
    settings = Optimisation(optimizer="sgd", weight_decay=0.0, schedule="constant", warmup=0.0, lookahead=3)
    fast = slow = np.asarray(WEIGHTS["kernel"], np.float64)
    trace = 0.0
    seen, state = run(settings)
    for i, (found, gradient) in enumerate(zip(seen, GRADIENTS, strict=True), 1):
        trace = np.asarray(gradient["kernel"]) + 0.9 * trace
        fast = fast - settings.learning_rate * (np.asarray(gradient["kernel"]) + 0.9 * trace)
        if i % 3 == 0:
            fast = slow = slow + 0.5 * (fast - slow)
        np.testing.assert_allclose(found["kernel"], fast, rtol=1e-5)
    np.testing.assert_allclose(result(state, seen[-1])["kernel"], slow, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "adam"}, "trainer.optimizer=adam is unknown; allowed: adamw, sgd, lamb, lion, rmsprop"),
        ({"schedule": "step"}, "trainer.schedule=step is unknown; allowed: cosine, linear, constant"),
        ({"clip": -1.0}, "trainer.clip must be at least 0, not -1.0"),
        ({"ema": 1.0}, "trainer.ema must be at least 0 and below 1, not 1.0"),
        ({"precision": "float16"}, "trainer.precision=float16 is unknown; allowed: auto, float32, bfloat16"),
        ({"batch": 90, "accumulate": 4}, "trainer.accumulate=4 must divide trainer.batch=90"),
    ],
)
def test_wrong_settings_are_one_line(changes, said):
    with pytest.raises(ConfigError, match=said):
        PlainConfig(**changes)


# -- in the loop ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task():
    return easy_task((120, 60, 6), noise=0.4)


@pytest.fixture(scope="module")
def net():
    return nnx.jit(lambda: SMALL.create(0))()


def weights_after(config, net, task, steps=1):
    training = Training(config, net, task, jax.random.key(0))
    return next(state for state in training.run(training.begin()) if state.steps >= steps)


@pytest.mark.slow
def test_devices_share_a_batch_and_get_what_one_gets(net, task, monkeypatch):
    """The whole batch's statistics are those that batch norms use."""
    assert jax.local_device_count() > 1
    shared = weights_after(TRAINER, net, task)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(shared.weights)} == {2}
    monkeypatch.setattr(loop, "mesh_for", lambda batch: None)
    close(jax.tree.leaves(shared.weights), jax.tree.leaves(weights_after(TRAINER, net, task).weights), 2e-4)


def test_as_many_devices_are_used_as_divide_a_batch():
    assert loop.mesh_for(7) is None
    assert loop.mesh_for(8).size == 2


def test_parts_of_a_batch_are_what_each_alone_would_be(net, task):
    """Gradients are averaged; batch norms use a part's statistics, so that two equal halves change nothing."""
    half = task.train.take(np.arange(12))
    twice = half.take(np.tile(np.arange(12), 2))
    config = PlainConfig(batch=24, optimizer="sgd", schedule="constant", warmup=0.0, shift=0, learning_rate=0.1, epochs=1)
    whole = weights_after(config, net, task.changed(train=twice))
    training = Training(replace(config, accumulate=2), net, task.changed(train=twice), jax.random.key(0))
    gradient = training._gradient_at((), 0, False, jnp.zeros(len(net.space.genes), jnp.int32))
    alone = Training(replace(config, batch=12), net, task.changed(train=half), jax.random.key(0))
    one = alone._gradient_at((), 0, False, jnp.zeros(len(net.space.genes), jnp.int32))
    begun, key = training.begin().weights, jax.random.key(1)
    found = jax.jit(gradient)(begun, None, jnp.asarray(twice.inputs), jnp.asarray(twice.targets), key)
    wanted = jax.jit(one)(begun, None, jnp.asarray(half.inputs), jnp.asarray(half.targets), key)
    close(jax.tree.leaves(found), jax.tree.leaves(wanted), 1e-5)
    assert whole.loss == pytest.approx(float(found[0]), rel=1e-3)


@pytest.mark.slow
def test_sixteen_bits_train_nearly_as_thirty_two(net, task):
    """Weights stay in 32 bits, and the result differs by rounding only, but differs."""
    exact, rounded = (weights_after(replace(TRAINER, precision=p), net, task, 10) for p in ("float32", "bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(rounded.weights)} == {jnp.float32.dtype}
    assert rounded.loss == pytest.approx(exact.loss, rel=0.1) and rounded.loss != exact.loss
