"""Elastic layers: sliced (static sizes) and masked (traced sizes) are the same arithmetic; NumPy says which."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import close, images, scrambled

from nasjax.supernets.elastic import (
    BatchNorm,
    Conv,
    ConvNorm,
    Dense,
    Moments,
    make_divisible,
    normal,
    pick,
)
from nasjax.supernets.layer import recording
from nasjax.supernets.squeeze_excite import SqueezeExcite

pytestmark = pytest.mark.usefixtures("strict")

INPUTS, OUTPUTS = 6, 10


def make(layer):
    return scrambled(layer(nnx.Rngs(0)), 3)


def moments(width):
    rng = np.random.default_rng(5)
    return Moments(jnp.asarray(rng.normal(size=width), jnp.float32), jnp.asarray(rng.uniform(0.5, 2, width), jnp.float32))


def maps(channels):
    return jnp.asarray(images(3, 5, channels))


def wide(layer, x, sizes):
    return layer(x, sizes[1], sizes[2]), None


def same_width(layer, x, sizes):
    """Depthwise: as wide as its input."""
    return layer(x, sizes[0], sizes[2]), None


def norm_of_batch(layer, x, sizes):
    return layer(x, None, sizes[0])


def norm_stored(layer, x, sizes):
    return layer(x, moments(INPUTS), sizes[0])


def conv_norm(layer, x, sizes):
    return layer(x, None, sizes[1], sizes[2])


# name: how the layer is made, how it is called with (inputs, outputs, kernel), its kernel sizes, whether width = inputs
LAYERS = {
    "dense": (lambda rngs: Dense(INPUTS, OUTPUTS, rngs=rngs), lambda f, x, s: (f(x, s[1]), None), (1,), False),
    "pointwise": (lambda rngs: Conv(INPUTS, OUTPUTS, rngs=rngs), wide, (1,), False),
    "biased": (lambda rngs: Conv(INPUTS, OUTPUTS, bias=True, rngs=rngs), wide, (1,), False),
    "strided": (lambda rngs: Conv(INPUTS, OUTPUTS, stride=2, bias=True, rngs=rngs), wide, (1,), False),
    "convolution": (lambda rngs: Conv(INPUTS, OUTPUTS, (3, 5), stride=2, rngs=rngs), wide, (3, 5), False),
    "depthwise": (lambda rngs: Conv(INPUTS, INPUTS, (3, 5, 7), depthwise=True, rngs=rngs), same_width, (3, 5, 7), True),
    "norm of the batch": (lambda rngs: BatchNorm(INPUTS), norm_of_batch, (1,), True),
    "norm with statistics": (lambda rngs: BatchNorm(INPUTS), norm_stored, (1,), True),
    "conv, norm, h-swish": (
        lambda rngs: ConvNorm(INPUTS, OUTPUTS, (1, 3), activation="h_swish", epsilon=1e-3, rngs=rngs),
        conv_norm,
        (1, 3),
        False,
    ),
}


@cache
def sizes_of(name):
    """(inputs, outputs, kernel): the largest, the smallest, random ones."""
    _, _, kernels, same = LAYERS[name]
    rng = np.random.default_rng(len(name))
    chosen = [(INPUTS, OUTPUTS, kernels[-1]), (1, 1, kernels[0])]
    for _ in range(3):
        chosen.append((int(rng.integers(1, INPUTS)), int(rng.integers(1, OUTPUTS)), int(rng.choice(kernels))))
    return [(inputs, inputs if same else outputs, kernel) for inputs, outputs, kernel in chosen]


def first(x, width):
    """Zero from `width` on along the last axis."""
    return jnp.where((jnp.arange(x.shape[-1]) < width)[None, None, None], x, 0)


def beyond(x, width):
    """True from `width` on along the last axis."""
    return np.broadcast_to(np.arange(x.shape[-1]) >= width, x.shape)


@pytest.mark.parametrize("name", LAYERS)
def test_masked_is_sliced(name):
    """Results, statistics and gradients; what is masked out is exactly zero, and so are the gradients of its weights."""
    build, call, kernels, _ = LAYERS[name]
    graph, weights, rest = nnx.split(make(build), nnx.Param, ...)
    x = maps(INPUTS)

    def run(weights, x, sizes):
        out, used = call(nnx.merge(graph, weights, rest), x, sizes)
        columns = jnp.cos(jnp.arange(out.shape[-1], dtype=jnp.float32)).reshape((1,) * (out.ndim - 1) + (-1,))
        rows = jnp.sin(jnp.arange(out.size // out.shape[-1], dtype=jnp.float32)).reshape(*out.shape[:-1], 1)
        return (out * columns * rows).sum(), (out, used)

    graded = jax.value_and_grad(run, has_aux=True)
    masked = jax.jit(lambda weights, x, sizes: graded(weights, first(x, sizes[0]), sizes))
    results = [masked(weights, x, jnp.asarray(sizes, jnp.int32)) for sizes in sizes_of(name)]
    for sizes, ((_, (out, used)), gradient) in zip(sizes_of(name), results, strict=True):
        inputs, width, _ = sizes
        sliced = jax.jit(lambda weights, x, sizes=sizes: graded(weights, x, sizes))
        (_, (wanted, wanted_used)), wanted_gradient = sliced(weights, x[..., :inputs])
        assert wanted.shape[-1] == width
        close(out[..., :width], wanted)
        assert not np.asarray(out)[beyond(out, width)].any()
        close(used, wanted_used)
        close(gradient, wanted_gradient, 2e-5)
        check_zeros(nnx.to_pure_dict(gradient), sizes, kernels, name)


def check_zeros(gradient, sizes, kernels, name):
    """Gradients are exactly zero wherever the sub-network has no weight, and somewhere not where it has."""
    inputs, width, kernel = sizes
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        leaf, words = np.asarray(leaf), [entry.key for entry in path]
        unused = np.zeros(leaf.shape, bool)
        if "transforms" in words:
            unused[:] = kernel > int(words[-1].removeprefix("to_"))
        else:
            unused |= beyond(leaf, width)
        if words[-1] == "kernel":
            if name != "depthwise":
                unused |= np.moveaxis(beyond(np.moveaxis(leaf, -2, -1), inputs), -1, -2)
            if leaf.ndim == 4:
                size = kernel if kernel == kernels[-1] else kernels[-2]  # smaller ones are made of the second largest
                margin = (kernels[-1] - size) // 2
                centre = np.zeros(leaf.shape[:2], bool)
                centre[margin : margin + size, margin : margin + size] = True
                unused |= ~centre[..., None, None]
        assert not leaf[unused].any(), words
        assert unused.all() or leaf[~unused].any(), words


@pytest.mark.parametrize("depthwise", [False, True])
def test_smaller_kernels_are_transformed_centres(depthwise):
    """The chain 7 -> 5 -> 3 of Once-for-All: crop the centre, then `crop @ M.T` over the flattened crop."""
    layer = make(lambda rngs: Conv(8, 8, (3, 5, 7), depthwise=depthwise, rngs=rngs))
    inputs, outputs = (1, 5) if depthwise else (6, 5)
    weight = np.asarray(layer.kernel[...], np.float64)[:, :, :inputs, :outputs].transpose(3, 2, 0, 1)  # OIHW, as in PyTorch
    wanted = {7: weight}
    for small in (5, 3):
        matrix = np.asarray(layer.transforms[f"to_{small}"][...], np.float64)
        crop = weight[:, :, 1:-1, 1:-1].reshape(outputs, inputs, small * small)
        weight = (crop @ matrix.T).reshape(outputs, inputs, small, small)
        wanted[small] = weight
    traced = jax.jit(lambda kernel, width: layer.weights(width, kernel, 6))
    for kernel, weight in wanted.items():
        weight = weight.transpose(2, 3, 1, 0)
        close(layer.weights(5, kernel, 6), weight.astype(np.float32), 1e-6)
        margin = (7 - kernel) // 2
        padded = np.zeros((7, 7, 1 if depthwise else 8, 8), np.float32)
        padded[margin : 7 - margin, margin : 7 - margin, :inputs, :outputs] = weight
        found = np.asarray(traced(jnp.int32(kernel), jnp.int32(5)))[:, :, :inputs]  # inputs meet zeros beyond
        close(found, padded[:, :, :inputs], 1e-6)
        assert not found[padded[:, :, :inputs] == 0].any()


def test_transforms_start_as_identities():
    """A fresh layer's small kernel is the centre of the large one."""
    layer = Conv(2, 3, (3, 5, 7), rngs=nnx.Rngs(0))
    close(layer.weights(3, 3, 2), layer.kernel[...][2:5, 2:5], 1e-6)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_batch_norm_against_numpy(epsilon):
    layer = scrambled(BatchNorm(6, epsilon=epsilon), 3)
    x = np.asarray(maps(4), np.float64) * 0.1
    scale, bias = np.asarray(layer.scale[...], np.float64)[:4], np.asarray(layer.bias[...], np.float64)[:4]
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))  # biased
    out, used = jax.jit(lambda x: layer(x, None))(jnp.asarray(x, jnp.float32))
    close(out, ((x - mean) / np.sqrt(variance + epsilon) * scale + bias).astype(np.float32))
    close(used, Moments(np.append(mean, [0, 0]), np.append(variance, [1, 1])), 1e-6)  # padded to the full width
    given = moments(6)
    mean, variance = (np.asarray(part, np.float64)[:4] for part in given)
    out, used = jax.jit(lambda x: layer(x, given))(jnp.asarray(x, jnp.float32))
    close(out, ((x - mean) / np.sqrt(variance + epsilon) * scale + bias).astype(np.float32))
    assert all((a == b).all() for a, b in zip(used, given, strict=True))


def ofa_make_divisible(value, divisor):
    new = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return new + divisor if new < 0.9 * value else new


@pytest.mark.parametrize("divisor", [8, 4])
def test_make_divisible_is_the_rule_of_mobilenets(divisor):
    values = range(1, 2000)
    wanted = [ofa_make_divisible(value, divisor) for value in values]
    assert [make_divisible(value, divisor) for value in values] == wanted
    traced = jax.vmap(lambda value: make_divisible(value, divisor))(jnp.asarray(values, jnp.int32))
    assert traced.dtype == jnp.int32 and traced.tolist() == wanted
    assert len(set(wanted)) > 200 // divisor


def test_pick():
    assert [pick((3, 5, 7), i) for i in range(3)] == [3, 5, 7]
    assert jax.vmap(lambda i: pick((3, 5, 7), i))(jnp.arange(3, dtype=jnp.int32)).tolist() == [3, 5, 7]


def numpy_squeeze_excite(layer, x):
    """Attention of a network whose width is that of `x`."""
    width = x.shape[-1]
    middle = ofa_make_divisible(width // 4, 8)
    pooled = x.mean((1, 2))
    parts = (layer.reduce.kernel, layer.reduce.bias, layer.expand.kernel, layer.expand.bias)
    reduce, reduce_bias, expand, expand_bias = (np.asarray(part[...]) for part in parts)
    reduced = np.maximum(pooled @ reduce[0, 0, :width, :middle] + reduce_bias[:middle], 0)
    expanded = reduced @ expand[0, 0, :middle, :width] + expand_bias[:width]
    return x * (np.clip(expanded + 3, 0, 6) / 6)[:, None, None]


@pytest.mark.slow
def test_squeeze_excite_middle_follows_the_active_width():
    layer = make(lambda rngs: SqueezeExcite(72, rngs=rngs))
    widths = (24, 40, 48, 64, 72)
    assert [ofa_make_divisible(width // 4, 8) for width in widths] == [8, 16, 16, 16, 24]
    graph, weights = nnx.split(layer)

    @jax.jit
    def masked(weights, x, width):
        (_, out), gradient = jax.value_and_grad(score, has_aux=True)(weights, first(x, width), width)
        return out, gradient

    def score(weights, x, width):
        out = nnx.merge(graph, weights)(x, width)
        return jnp.square(out).sum(), out

    x = maps(72)
    for width in widths:
        out, gradient = masked(weights, x, jnp.int32(width))
        wanted = numpy_squeeze_excite(layer, np.asarray(x)[..., :width])
        close(out[..., :width], wanted)
        assert not np.asarray(out)[..., width:].any()
        (_, sliced), sliced_gradient = jax.jit(
            lambda weights, x, width=width: jax.value_and_grad(score, has_aux=True)(weights, x, width)
        )(weights, x[..., :width])
        close(sliced, wanted)
        close(gradient, sliced_gradient, 2e-5)
        middle = ofa_make_divisible(width // 4, 8)
        for part, used in (("reduce", (width, middle)), ("expand", (middle, width))):
            kernel = np.asarray(gradient[part]["kernel"][...])[0, 0]
            assert kernel[: used[0], : used[1]].any()
            assert not kernel[used[0] :].any() and not kernel[:, used[1] :].any()
            assert not np.asarray(gradient[part]["bias"][...])[used[1] :].any()


def test_a_traced_size_never_sees_weights_beyond_it():
    """Weights beyond the sizes, infinite ones too, change nothing: they are replaced, not multiplied by zero."""
    layer = make(lambda rngs: Dense(INPUTS, OUTPUTS, rngs=rngs))
    x = maps(INPUTS)
    wanted = layer(x, jnp.int32(4))
    layer.kernel[...] = layer.kernel[...].at[:, 4:].set(jnp.inf)
    layer.bias[...] = layer.bias[...].at[4:].set(jnp.nan)
    assert (layer(x, jnp.int32(4)) == wanted).all()


def test_recording_notes_static_sizes_and_refuses_two_that_disagree():
    layer = make(lambda rngs: Conv(INPUTS, OUTPUTS, (3, 5), rngs=rngs))
    with recording() as calls:
        layer(maps(4), 7, 3)
        assert calls == {id(layer): {"width": 7, "kernel": 3, "inputs": 4}}
        with pytest.raises(ValueError, match=r"Conv was called twice, with sizes .*'width': 7.* and .*'width': 8"):
            layer(maps(4), 8, 3)
    layer(maps(4), 8, 5)  # nobody listens
    assert calls == {id(layer): {"width": 7, "kernel": 3, "inputs": 4}}


def test_narrowing_keeps_what_the_call_reads():
    layer = make(lambda rngs: Conv(INPUTS, OUTPUTS, (3, 5), bias=True, rngs=rngs))
    x = maps(4)
    wanted = layer(x, 7, 3)
    layer.narrow(width=7, kernel=3, inputs=4)
    assert layer.kernel.shape == (3, 3, 4, 7) and layer.bias.shape == (7,) and not layer.transforms
    assert (layer(x) == wanted).all()


@pytest.mark.parametrize("shape", [(1,), (3, 3, 5, 7), (2**16 + 1,)])
def test_first_weights_are_the_normal_draws_of_their_key(shape):
    key = jax.random.key(4)
    wanted = jax.random.normal(key, shape) * 0.3
    np.testing.assert_allclose(normal(key, shape, 0.3), wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(lambda key: normal(key, shape, 0.3))(key), wanted, rtol=1e-6)
