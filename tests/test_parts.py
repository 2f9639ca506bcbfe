"""Micro-batches and deferred batch norms have the outputs of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_ways import NETS
from tiny import architectures, close, scrambled

from nasjax.evaluation import micro_batched as stage_micro_batches
from nasjax.evaluation.micro_batched import MicroBatched, micro_batched
from nasjax.evaluation.switch import Switched
from nasjax.supernets import elastic
from nasjax.supernets.cpu import micro_batches
from nasjax.supernets.cpu.deferred_norm import DeferredNorm
from nasjax.supernets.cpu.micro_batches import (
    concatenate_micro_batches,
    largest_divisor,
    map_micro_batches,
    micro_batch_size,
)
from nasjax.supernets.elastic import RECALIBRATE, ConvNorm

IMAGES = 6


def random_images(net):
    return jnp.asarray(np.random.default_rng(5).normal(1, 2, (IMAGES, *net.input_shape)), jnp.float32)


@pytest.mark.parametrize(
    ("batch", "example_bytes", "max_bytes", "minimum", "size"),
    [(12, 10, 45, 1, 4), (12, 10, 5, 1, 1), (12, 10, 5, 2, 2), (12, 10, 1e9, 1, 12), (7, 10, 45, 1, 1), (7, 10, 45, 2, 7)],
)
def test_a_micro_batch_is_the_largest_divisor_that_fits(batch, example_bytes, max_bytes, minimum, size):
    assert largest_divisor(batch, example_bytes, max_bytes, minimum) == size


def test_micro_batches_grow_with_the_processors_and_are_the_whole_batch_on_an_accelerator(monkeypatch):
    x = jax.ShapeDtypeStruct((12, 4, 4, 8), jnp.float32)
    monkeypatch.setattr(micro_batches, "processors", lambda: 1)
    assert micro_batch_size(x, 3 * 512) == 3
    monkeypatch.setattr(micro_batches, "processors", lambda: 2)
    assert micro_batch_size(x, 3 * 512) == 6
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert micro_batch_size(x, 3 * 512) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "kind"), [("static", "resnet"), ("masked", "mobilenet"), ("masked", "resnet"), ("switched", "mobilenet")]
)
def test_moments_and_outputs_are_those_of_the_whole_batch(run, kind, monkeypatch):
    net = NETS[kind]()
    images = random_images(net)
    forward = Switched(net).forward if run == "switched" else net.forward
    arch = architectures(net.space, 1)[2]
    choice = arch if run == "static" else jnp.asarray(arch, jnp.int32)
    whole = jax.jit(lambda images: forward(images, choice, None))(images)
    monkeypatch.setattr(ConvNorm, "_micro_batch_size", lambda layer, x, width: 2)
    in_micro_batches = jax.jit(lambda images: forward(images, choice, RECALIBRATE))(images)
    close(in_micro_batches, whole, 2e-5)


def test_norms_are_deferred_only_while_re_calibrating(monkeypatch):
    net = NETS["mobilenet"]()
    layer = next(stage.expand for stage in net.stages if hasattr(stage, "expand"))
    x = jnp.ones((IMAGES, 5, 5, layer.conv.kernel.shape[2]))
    monkeypatch.setattr(elastic, "CACHED_BYTES", 1)
    assert not isinstance(layer.deferred(x, None)[0], DeferredNorm)  # as in training
    assert isinstance(layer.deferred(x, RECALIBRATE)[0], DeferredNorm)
    assert not isinstance(layer.deferred(x, layer.norm.stored())[0], DeferredNorm)
    assert not isinstance(layer(x, RECALIBRATE)[0], DeferredNorm)


def test_micro_batches_pass_empty_arrays_on():
    """Such as the caches of a decoder's layers that are left out."""
    tree = {"a": jnp.zeros((6, 3, 0)), "b": jnp.arange(12.0).reshape(6, 2)}
    run = jax.jit(
        lambda tree: concatenate_micro_batches(map_micro_batches(lambda part: jax.tree.map(jnp.negative, part), 2, tree))
    )
    found = run(tree)
    assert found["a"].shape == (6, 3, 0)
    np.testing.assert_array_equal(found["b"], -tree["b"])


def test_moments_of_micro_batches_are_accurate_far_from_zero(monkeypatch):
    layer = ConvNorm(3, 4, rngs=nnx.Rngs(0))
    layer.conv.kernel[...] = jnp.eye(3, 4)[None, None]
    x = jnp.asarray(np.random.default_rng(0).normal(1000, 1, (IMAGES, 8, 8, 3)), jnp.float32)
    monkeypatch.setattr(elastic, "CACHED_BYTES", 1)
    found = layer(x, RECALIBRATE)[1].variance[:3]
    np.testing.assert_allclose(found, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("seen", [MicroBatched, Switched])
def test_stages_have_the_same_outputs_in_micro_batches(kind, seen, monkeypatch):
    net = scrambled(NETS[kind](), 1)
    images = random_images(net)
    monkeypatch.setattr(stage_micro_batches, "WEIGHTS_SHARE", 0)
    arch = jnp.asarray(architectures(net.space, 1)[2], jnp.int32)
    whole = jax.jit(lambda images: net.forward(images, arch, net.stored())[0])(images)
    monkeypatch.setattr(stage_micro_batches, "STAGE_BYTES", 1)
    in_micro_batches = jax.jit(lambda images: seen(net).forward(images, arch, net.stored())[0])(images)
    close(in_micro_batches, whole)


def test_a_stage_runs_once_for_each_micro_batch(monkeypatch):
    monkeypatch.setattr(stage_micro_batches, "STAGE_BYTES", 2 * 4 * 4 / micro_batches.processors())
    shapes = []

    def run(x):
        shapes.append(x.shape)
        return x + 1

    x = jnp.arange(24.0).reshape(6, 4)
    np.testing.assert_array_equal(micro_batched(run, x, ()), x + 1)
    assert set(shapes) == {(2, 4)}
