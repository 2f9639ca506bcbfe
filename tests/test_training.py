"""Sandwich training teaches every sub-network, the same seed the same weights."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import CONFIG, close, easy_task, step_of

from nasjax import tasks
from nasjax.evaluation import MaskedConfig
from nasjax.evaluation.calibration import calibrate
from nasjax.supernets import supernet
from nasjax.supernets.checkpoints import load_weights, tensors
from nasjax.supernets.resolution import resized
from nasjax.tasks.image_augmentation import shift_images
from nasjax.training import SandwichConfig, SinglePathConfig, run
from nasjax.training.loop import DivergedError, Training, train
from nasjax.training.losses import step_loss

SMALL = replace(
    CONFIG,
    widths=(8,),
    strides=(2,),
    depths=((1, 2),),
    kernels=(3,),
    expands=(1, 2),
    activations=("relu",),
    squeeze_excite=(False,),
    first_width=0,
    final_expand=0,
)
TRAINER = SandwichConfig(epochs=12, batch=24, learning_rate=1e-2, random_subnets=1)


@pytest.fixture(scope="module")
def task():
    return easy_task((120, 60, 6), noise=0.4)


@pytest.fixture(scope="module")
def fresh():
    return nnx.jit(lambda: SMALL.create(0))()


@pytest.fixture(scope="module")
def trained(fresh, task):
    """The trained network, and the losses on the way."""
    losses = []
    net = train(TRAINER, fresh, task, jax.random.key(3), lambda *facts: losses.append(facts))
    return net, losses


def ends(net, task):
    """Metrics of the largest and the smallest sub-network."""
    archs = np.stack([net.space.largest(), net.space.smallest()])
    return MaskedConfig(batch=30, calibration_examples=120, chunk=2).bind(net, task)(archs)


def test_training_teaches_the_largest_and_the_smallest(fresh, trained, task):
    net, losses = trained
    before, after = ends(fresh, task), ends(net, task)
    assert (after["loss"] < 0.6 * before["loss"]).all()
    assert (after["accuracy_top1"] > 80).all()  # chance: 33
    assert [facts[:2] for facts in losses] == [(epoch, 12) for epoch in range(1, 13)]
    assert losses[-1][2] < 0.6 * losses[0][2]


def test_the_same_seed_gives_the_same_weights(fresh, trained, task):
    first = tensors(trained[0])
    again, other = (tensors(train(TRAINER, fresh, task, jax.random.key(seed), lambda *_: None)) for seed in (3, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert any((value != other[name]).any() for name, value in first.items())


def test_training_leaves_the_network_given_alone(fresh, trained):
    close(nnx.to_pure_dict(nnx.state(fresh)), nnx.to_pure_dict(nnx.state(nnx.jit(lambda: SMALL.create(0))())), 0)


@pytest.mark.slow
def test_every_resolution_is_trained(task, monkeypatch):
    seen = set()

    def noted(images, size):
        seen.add(size)
        return resized(images, size)

    monkeypatch.setattr(supernet, "resized", noted)
    net = nnx.jit(lambda: replace(SMALL, resolutions=(4, 6)).create(0))()
    trained = train(TRAINER, net, task, jax.random.key(3), lambda *facts: None)
    assert seen == {4, 6}
    archs = np.stack([net.space.largest(), net.space.smallest()])
    before, after = (MaskedConfig(batch=30, calibration_examples=120, chunk=2).bind(n, task)(archs) for n in (net, trained))
    assert (after["loss"] < 0.6 * before["loss"]).all()
    assert [net.host(arch) for arch in archs] == [(6,), (4,)]


def test_stored_statistics_are_the_largest_networks(trained, task):
    net, _ = trained
    graph, weights = nnx.split(net)
    batches = jnp.asarray(task.train.inputs).reshape(5, 24, 7, 7, 3)
    largest = tuple(map(int, net.space.largest()))
    wanted = jax.jit(lambda weights: calibrate(nnx.merge(graph, weights), largest, batches))(weights)
    close(net.stored(), wanted, 1e-5)
    assert np.abs(net.stored()[1]["expand"].mean).max() > 0.01


def test_a_loss_that_is_not_finite_stops_training(fresh, task):
    broken = nnx.clone(fresh)
    broken.stages[0].conv.norm.bias[...] = jnp.full_like(broken.stages[0].conv.norm.bias[...], jnp.nan)
    called = []
    with pytest.raises(DivergedError, match=r"the loss is nan in epoch 1, step 1 of 5: reduce trainer\.learning_rate"):
        train(TRAINER, broken, task, jax.random.key(3), lambda *facts: called.append(facts))
    assert not called


@pytest.mark.parametrize("distillation", [True, False])
def test_the_loss_by_hand(fresh, task, distillation):
    """The largest learns from labels, the others from its probabilities (it learns nothing from them) or from labels too."""
    net = fresh
    graph, weights, rest = nnx.split(net, nnx.Param, ...)
    images, labels = jnp.asarray(task.train.inputs[:24]), jnp.asarray(task.train.targets[:24])
    archs = net.space.sample_raw(jax.random.key(1), 2)

    @jax.jit
    def logits(weights):
        net = nnx.merge(graph, weights, rest)
        rows = jnp.concatenate([jnp.stack([net.space.largest(), net.space.smallest()]), archs])
        return jax.vmap(lambda arch: net.forward(images, arch, None)[0])(rows)

    values = np.asarray(logits(weights), np.float64)
    log = values - np.log(np.exp(values).sum(-1, keepdims=True))
    teacher = np.exp(log[0])
    of_labels = -log[:, np.arange(24), labels].mean(1)
    of_teacher = -(teacher * log).sum(-1).mean(1)
    wanted = [of_labels[0], *(of_teacher if distillation else of_labels)[1:]]

    @jax.jit
    def loss(weights):
        subnets = SandwichConfig(distillation=distillation).subnets(step_of(net, jax.random.key(1)))
        return step_loss(nnx.merge(graph, weights, rest), task, images, labels, subnets)

    assert float(loss(weights)) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_no_gradient_reaches_the_teacher_through_the_students(task):
    logits, teacher = jnp.asarray([[1.0, 2.0, 0.5]]), jnp.asarray([[0.2, 0.1, 3.0]])
    assert not np.asarray(jax.grad(lambda t: task.loss(logits, None, t).sum())(teacher)).any()
    gradient = jax.grad(lambda s: task.loss(s, None, teacher).sum())(logits)
    close(gradient, jax.nn.softmax(logits) - jax.nn.softmax(teacher), 1e-6)


def test_shifting_by_nothing_is_the_identity():
    images = np.random.default_rng(0).normal(size=(5, 4, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(shift_images(jax.random.key(0), jnp.asarray(images), 0), images)


@pytest.mark.parametrize("most", [1, 2])
def test_every_image_is_one_of_its_shifts(most):
    """And all shifts come about, each image's own."""
    number = 400
    images = np.random.default_rng(0).normal(size=(number, 4, 6, 1)).astype(np.float32)
    shifted = np.asarray(shift_images(jax.random.key(1), jnp.asarray(images), most))
    rows, columns = np.arange(4), np.arange(6)
    steps = range(-most, most + 1)
    counts = np.zeros((2 * most + 1) ** 2, int)
    for image, result in zip(images, shifted, strict=True):
        moved = [image[np.clip(rows + down, 0, 3)][:, np.clip(columns + right, 0, 5)] for down in steps for right in steps]
        same = [np.array_equal(result, candidate) for candidate in moved]
        assert sum(same) == 1
        counts += same
    assert counts.min() > 0.4 * number / len(counts)


@pytest.mark.parametrize("name", ["epochs", "batch", "learning_rate"])
def test_wrong_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"trainer.{name} must be above 0, not 0"):
        SandwichConfig(**{name: 0})


def test_weights_are_kept_where_scoring_fails(task, tmp_path, monkeypatch):
    trained = CONFIG.create(7)
    monkeypatch.setattr(tasks, "create", lambda **settings: task)
    monkeypatch.setattr(run, "_network", lambda config: CONFIG.create(0))
    monkeypatch.setattr(run, "_run", lambda path, training, state, *_: state)
    monkeypatch.setattr(Training, "network", lambda training, state: trained)
    monkeypatch.setattr(run, "_scores", lambda *given: 1 / 0)
    config = {"supernet": {"name": "digits"}, "task": {"name": "digits"}, "subnet": None, "largest": None,
              "teacher": None, "seed": 0,
              "trainer": {"name": "sandwich"}, "evaluator": {"name": "masked"}}  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        run.train_run(tmp_path / "run", config, "nasjax train", lambda *given: None, lambda *given: None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    kept = tensors(load_weights(lambda: CONFIG.create(1), tmp_path / "run" / "supernet.safetensors"))
    for name, values in tensors(trained).items():
        np.testing.assert_array_equal(kept[name], values)
    assert json.loads((tmp_path / "run" / "record.json").read_text())["scores"] == {}


@pytest.mark.slow
def test_a_single_path_is_one_random_sub_network_on_the_targets(fresh, task):
    """Its loss by hand; every gene is drawn by itself, so that all depths are equally frequent."""
    config, space = SinglePathConfig(), fresh.space
    subnets = config.subnets(step_of(fresh, jax.random.key(1)))
    (arch,) = np.asarray(subnets.traced)
    inputs, targets = jnp.asarray(task.train.inputs[:20]), jnp.asarray(task.train.targets[:20])
    logits = jax.jit(lambda inputs: fresh.forward(inputs, tuple(map(int, arch)), None)[0])(inputs)
    wanted = -jax.nn.log_softmax(logits)[jnp.arange(20), targets].mean()
    np.testing.assert_allclose(step_loss(fresh, task, inputs, targets, subnets), wanted, rtol=1e-5)
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = np.asarray(jax.vmap(lambda key: config.subnets(step_of(fresh, key)).traced[0])(keys))
    for i, gene in enumerate(space.genes):
        if not gene.needs:
            shares = np.bincount(drawn[:, i], minlength=len(gene.options)) / len(drawn)
            np.testing.assert_allclose(shares, 1 / len(gene.options), atol=0.08)
