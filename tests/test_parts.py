"""Few pictures at a time, and normalisation that is pending: the same numbers as all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_ways import NETS
from tiny import architectures, close, scrambled

from nasjax.evaluation import micro_batched as few
from nasjax.evaluation.micro_batched import MicroBatched, micro_batched
from nasjax.evaluation.switch import Switched
from nasjax.supernets import elastic
from nasjax.supernets.cpu import micro_batches as parts
from nasjax.supernets.cpu.deferred_norm import Pending
from nasjax.supernets.cpu.micro_batches import largest_part, together
from nasjax.supernets.elastic import RECALIBRATE, ConvNorm

PICTURES = 6


def pictures(net):
    return jnp.asarray(np.random.default_rng(5).normal(1, 2, (PICTURES, *net.input_shape)), jnp.float32)


@pytest.mark.parametrize(
    ("batch", "each", "most", "least", "part"),
    [(12, 10, 45, 1, 4), (12, 10, 5, 1, 1), (12, 10, 5, 2, 2), (12, 10, 1e9, 1, 12), (7, 10, 45, 1, 1), (7, 10, 45, 2, 7)],
)
def test_a_part_is_the_largest_divisor_that_fits(batch, each, most, least, part):
    assert largest_part(batch, each, most, least) == part


def test_each_processor_gets_its_part_and_an_accelerator_takes_all_at_once(monkeypatch):
    x = jax.ShapeDtypeStruct((12, 4, 4, 8), jnp.float32)
    monkeypatch.setattr(parts, "processors", lambda: 1)
    assert together(x, 3 * 512) == 3
    monkeypatch.setattr(parts, "processors", lambda: 2)
    assert together(x, 3 * 512) == 6
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert together(x, 3 * 512) == 12


@pytest.mark.parametrize(
    ("run", "kind"), [("static", "resnet"), ("masked", "mobilenet"), ("masked", "resnet"), ("switched", "mobilenet")]
)
def test_moments_and_answers_are_those_of_the_whole_batch(run, kind, monkeypatch):
    net = NETS[kind]()
    images = pictures(net)
    forward = Switched(net).forward if run == "switched" else net.forward
    arch = architectures(net.space, 1)[2]
    choice = arch if run == "static" else jnp.asarray(arch, jnp.int32)
    whole = jax.jit(lambda images: forward(images, choice, None))(images)
    monkeypatch.setattr(ConvNorm, "_few", lambda layer, x, width: 2)
    parted = jax.jit(lambda images: forward(images, choice, RECALIBRATE))(images)
    close(parted, whole, 2e-5)


def test_layers_hand_on_what_is_pending(monkeypatch):
    net = NETS["mobilenet"]()
    layer = next(stage.expand for stage in net.stages if hasattr(stage, "expand"))
    x = jnp.ones((PICTURES, 5, 5, layer.conv.kernel.shape[2]))
    monkeypatch.setattr(elastic, "CACHED_BYTES", 1)
    assert not isinstance(layer.pending(x, None)[0], Pending)  # as in training
    assert isinstance(layer.pending(x, RECALIBRATE)[0], Pending)
    assert not isinstance(layer.pending(x, layer.norm.stored())[0], Pending)
    assert not isinstance(layer(x, RECALIBRATE)[0], Pending)


def test_moments_of_parts_keep_their_digits_far_from_zero(monkeypatch):
    layer = ConvNorm(3, 4, rngs=nnx.Rngs(0))
    layer.conv.kernel[...] = jnp.eye(3, 4)[None, None]
    x = jnp.asarray(np.random.default_rng(0).normal(1000, 1, (PICTURES, 8, 8, 3)), jnp.float32)
    monkeypatch.setattr(elastic, "CACHED_BYTES", 1)
    found = layer(x, RECALIBRATE)[1].variance[:3]
    np.testing.assert_allclose(found, np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("seen", [MicroBatched, Switched])
def test_stages_answer_few_pictures_as_they_answer_all(kind, seen, monkeypatch):
    net = scrambled(NETS[kind](), 1)
    images = pictures(net)
    monkeypatch.setattr(few, "WEIGHTS_SHARE", 0)
    arch = jnp.asarray(architectures(net.space, 1)[2], jnp.int32)
    whole = jax.jit(lambda images: net.forward(images, arch, net.stored())[0])(images)
    monkeypatch.setattr(few, "STAGE_BYTES", 1)
    parted = jax.jit(lambda images: seen(net).forward(images, arch, net.stored())[0])(images)
    close(parted, whole)


def test_every_part_is_given_to_a_stage_once(monkeypatch):
    monkeypatch.setattr(few, "STAGE_BYTES", 2 * 4 * 4 / parts.processors())
    shapes = []

    def run(x):
        shapes.append(x.shape)
        return x + 1

    x = jnp.arange(24.0).reshape(6, 4)
    np.testing.assert_array_equal(micro_batched(run, x, ()), x + 1)
    assert set(shapes) == {(2, 4)}
