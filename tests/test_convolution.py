"""Forms of convolutions and moments that are fast on a CPU or an accelerator, against XLA's own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tiny import close

from nasjax.supernets.cpu import convolution
from nasjax.supernets.forms import VMAPPED, Forms, using
from nasjax.supernets.moments import one_pass, two_passes

pytestmark = pytest.mark.usefixtures("strict")

SIZES = [(6, 7), (5, 8)]


def reference(x, weight, stride, groups=1):
    pad = weight.shape[0] // 2
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, weight, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=numbers, feature_group_count=groups
    )


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape), jnp.float32)


def agree(ours, theirs, x, weight):
    """Results, and gradients of a random functional of them, are equal."""
    target = normal(*jax.eval_shape(theirs, x, weight).shape, seed=1)

    def graded(function):
        gradient = jax.grad(lambda x, weight: jnp.vdot(function(x, weight), target), argnums=(0, 1))
        return lambda x, weight: (function(x, weight), gradient(x, weight))

    found, wanted = jax.jit(lambda x, weight: (graded(ours)(x, weight), graded(theirs)(x, weight)))(x, weight)
    close(found, wanted, 1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, pytest.param(5, marks=pytest.mark.slow)])
def test_depthwise_is_the_grouped_convolution(size, stride):
    for height, width in SIZES:
        agree(
            lambda x, w: convolution.depthwise(x, w, stride),
            lambda x, w: reference(x, w, stride, groups=4),
            normal(2, height, width, 4),
            normal(size, size, 1, 4),
        )


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_of_fewer_pixels_than_taps(stride):
    for size, shape in ((3, (2, 3)), (5, (4, 4)), (7, (1, 5))):
        agree(
            lambda x, w: convolution.depthwise(x, w, stride),
            lambda x, w: reference(x, w, stride, groups=4),
            normal(2, *shape, 4),
            normal(size, size, 1, 4),
        )


@pytest.mark.parametrize("batch", [2, 7, 12])
def test_depthwise_of_images_that_leave_the_caches(monkeypatch, batch):
    """Few at a time, as many as part the batch evenly: of 12, 3 fit; of 2 and 7 there is no such number."""
    x, weight = normal(batch, 5, 8, 4), normal(3, 3, 1, 4)
    monkeypatch.setattr(convolution, "CACHED_BYTES", 14 * 5 * 8 * 4)
    assert convolution._micro_batch_size(x) == {2: 2, 7: 7, 12: 3}[batch]
    agree(lambda x, w: convolution.depthwise(x, w, 2), lambda x, w: reference(x, w, 2, groups=4), x, weight)


@pytest.mark.slow
def test_depthwise_with_49_taps():
    weight = normal(7, 7, 1, 4)
    for stride in (1, 2):
        ours, theirs = (
            lambda x, w, stride=stride: convolution.depthwise(x, w, stride),
            lambda x, w, stride=stride: reference(x, w, stride, groups=4),
        )
        for height, width in SIZES:
            x = normal(2, height, width, 4)
            close(jax.jit(ours)(x, weight), theirs(x, weight))
    agree(ours, theirs, normal(1, 5, 6, 4), weight)


@pytest.mark.parametrize("channels", [3, 12])  # few: a product with patches; more: the library's
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_dense_convolution(size, stride, channels):
    weight = normal(size, size, channels, 5)
    for height, width in SIZES:
        x = normal(2, height, width, channels)
        close(jax.jit(convolution.convolve, static_argnums=2)(x, weight, stride), reference(x, weight, stride))
    if size == 3:
        agree(lambda x, w: convolution.convolve(x, w, stride), lambda x, w: reference(x, w, stride), x, weight)


def test_pointwise_is_the_convolution_of_size_one():
    agree(convolution.pointwise, lambda x, w: reference(x, w, 1), normal(2, 5, 6, 7), normal(1, 1, 7, 4))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_population_of_weights_on_the_same_images(stride):
    """`vmap` over weights alone, as masked evaluation does it, is a loop."""
    x, few = normal(2, 7, 7, 6), normal(2, 7, 7, 3)
    cases = [
        (lambda w: convolution.depthwise(x, w, stride), lambda w: reference(x, w, stride, groups=6), normal(3, 5, 5, 1, 6)),
        (lambda w: convolution.convolve(few, w, stride), lambda w: reference(few, w, stride), normal(3, 3, 3, 3, 4)),
        (lambda w: convolution.convolve(x, w, stride), lambda w: reference(x, w, stride), normal(3, 3, 3, 6, 4)),
        (lambda w: convolution.pointwise(x, w), lambda w: reference(x, w, 1), normal(3, 1, 1, 6, 4)),
    ]
    for ours, theirs, weights in cases:
        close(jax.jit(jax.vmap(ours))(weights), jnp.stack([theirs(weight) for weight in weights]))


def test_library_convolution_against_loops():
    x, weight = np.asarray(normal(1, 5, 4, 2)), np.asarray(normal(3, 3, 2, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = np.zeros((1, 3, 2, 3))
    for row in range(3):
        for column in range(2):
            window = padded[0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            wanted[0, row, column] = np.einsum("hwi,hwio->o", window, weight)
    close(convolution.library_convolution(jnp.asarray(x), jnp.asarray(weight), 2), wanted)


def test_activations():
    x = np.linspace(-5, 8, 27, dtype=np.float32)
    hard = np.clip(x + 3, 0, 6) / 6
    wanted = {"none": x, "relu": np.maximum(x, 0), "relu6": np.clip(x, 0, 6), "h_swish": x * hard, "h_sigmoid": hard}
    assert set(convolution.ACTIVATIONS) == set(wanted)
    for name, activation in convolution.ACTIVATIONS.items():
        close(activation(jnp.asarray(x)), wanted[name], 1e-6)


@pytest.mark.parametrize("bytes_at_once", [0, 2 * 12 * 9 * 30 * 4, 2**25])
def test_gradients_of_patches_that_leave_the_caches(monkeypatch, bytes_at_once):
    """One image at a time, two, or all six."""
    monkeypatch.setattr(convolution, "PATCHES_BYTES", 0)
    monkeypatch.setattr(convolution, "GRADIENT_BYTES", bytes_at_once)
    x, weight = normal(6, 4, 3, 30), normal(3, 3, 30, 4)
    agree(lambda x, w: convolution.convolve(x, w, 1), lambda x, w: reference(x, w, 1), x, weight)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_taps_that_are_left_out_read_padding_only(size, stride):
    """Of maps so small that some taps of the kernel lie outside for every output."""
    for length in range(1, 9):
        outputs = range(0, length, stride)
        inside = [tap for tap in range(size) if any(0 <= start + tap - size // 2 < length for start in outputs)]
        assert list(convolution._taps_inside(length, size, stride)) == inside


def of_each_network(x, weight, stride, groups, own_maps):
    """The library's convolution of each network of a population, one by one."""
    rows = range(len(weight))
    return jnp.stack([reference(x[i] if own_maps else x, weight[i], stride, groups) for i in rows])


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("form", VMAPPED)
def test_a_population_of_kernels_is_convolved_as_each_network_alone(form, groups, stride=2):
    """The form is that of accelerators, run here on a CPU; maps are shared by the networks, or each network has its own."""
    weight, shared = normal(3, 3, 3, 4 // groups, 4), normal(2, 6, 7, 4)
    for x, axis in ((shared, None), (jnp.stack([shared, 2 * shared, -shared]), 0)):
        with using(Forms(vmapped=form)):
            run = jax.vmap(lambda x, w: convolution.vmappable_convolution(x, w, stride, groups), (axis, 0))
            close(jax.jit(run)(x, weight), of_each_network(x, weight, stride, groups, axis == 0), 1e-5)
    with using(Forms(vmapped=form)):  # One kernel for the whole population.
        run = jax.vmap(lambda x: convolution.vmappable_convolution(x, weight[0], stride, groups))
        several = jnp.stack([shared, -shared])
        close(jax.jit(run)(several), jnp.stack([reference(x, weight[0], stride, groups) for x in several]), 1e-5)


@pytest.mark.parametrize("form, counted", [("library", [12]), ("loop", [4]), ("products", [])])
def test_only_the_librarys_form_has_a_group_for_every_network_and_channel(form, counted):
    """The program that an NVIDIA GPU is given, read without one: groups of its convolutions."""
    weight, x = normal(3, 3, 3, 1, 4), normal(3, 2, 6, 7, 4)
    with using(Forms(vmapped=form)):
        run = jax.jit(jax.vmap(lambda x, w: convolution.depthwise(x, w, 1)))
        text = run.trace(x, weight).lower(lowering_platforms=("cuda",)).as_text()
    assert [int(groups) for groups in re.findall(r"feature_group_count = (\d+)", text)] == counted


def test_moments_by_one_pass_are_those_by_two_also_far_from_zero():
    """Squares of values near 1000 cancel in float32: the variance would be off by a hundredth."""
    x = normal(4, 5, 6, 3) * jnp.asarray([[[[1.0, 0.01, 0.0]]]]) + jnp.asarray([[[[1000.0, 3.0, -2.0]]]])
    exact = np.asarray(x, np.float64)
    mean, variance = jax.jit(one_pass)(x)
    close(mean, exact.mean((0, 1, 2)), 1e-6)
    np.testing.assert_allclose(variance, exact.var((0, 1, 2)), rtol=1e-5, atol=1e-12)
    target = normal(3)
    gradients = [jax.grad(lambda x, f=f: jnp.vdot(f(x)[0] + f(x)[1], target))(x) for f in (one_pass, two_passes)]
    close(gradients[0], gradients[1], 1e-5)
