"""Convolutions with symmetric padding (kernel // 2), each in the form that is fastest on the platform.

XLA's CPU backend runs grouped convolutions, and those with few input channels, tens of times slower than sums of shifted
products. Accelerators run XLA's own convolution.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

from nasjax.supernets import forms
from nasjax.supernets.cpu.micro_batches import concatenate_micro_batches, largest_divisor, map_micro_batches

Maps = Float[Array, "batch _height _width _channels"]
"""Feature maps, NHWC."""


def pointwise(x: Maps, weight: Float[Array, "1 1 inputs outputs"]) -> Maps:
    """1 x 1 convolution of stride 1, as one matrix product."""
    return x @ weight[0, 0]


MAX_INPUTS_OWN_KERNELS, MAX_INPUTS_SHARED_KERNEL = 1024, 72
"""The most inputs of one output (kernel size x size x channels) with which im2col is faster on a CPU than XLA's convolution:
if each network of a population has its own kernel, with which XLA's is slow, and if all share one."""


def convolve(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int, own: bool = False) -> Maps:
    """Dense convolution, NHWC and HWIO; `own`: each network of a population may have its own kernel."""
    inputs = weight.size // weight.shape[3]
    pixels = ((x.shape[1] - 1) // stride + 1) * ((x.shape[2] - 1) // stride + 1)
    im2col = inputs <= (MAX_INPUTS_OWN_KERNELS if own else MAX_INPUTS_SHARED_KERNEL) or pixels < weight.shape[0] ** 2
    return lax.platform_dependent(
        x,
        weight,
        cpu=lambda x, w: _im2col_product(x, w, stride) if im2col else _library_forward(x, w, stride),
        default=lambda x, w: vmappable_convolution(x, w, stride),
    )


def depthwise(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """Depthwise convolution: one filter for each channel."""
    return lax.platform_dependent(
        x,
        weight,
        cpu=lambda x, w: _depthwise_on_cpu(x, w, stride),
        default=lambda x, w: vmappable_convolution(x, w, stride, groups=x.shape[-1]),
    )


def vmappable_convolution(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int, groups: int = 1) -> Maps:
    """XLA's convolution, which `vmap` turns into the current form. `groups`: 1, or as many as there are channels."""
    form = forms.current().vmapped
    if form == "library":
        return library_convolution(x, weight, stride, groups)

    @custom_vmap
    def convolved(x: Maps, weight: Float[Array, "size size inputs outputs"]) -> Maps:
        return library_convolution(x, weight, stride, groups)

    @convolved.def_vmap
    def of_rows(rows: int, batched: Any, x: Array, weight: Array) -> tuple[Array, bool]:
        own_maps, own_kernels = batched
        if not own_kernels:  # One convolution of all rows' maps.
            maps = library_convolution(x.reshape(-1, *x.shape[2:]), weight, stride, groups)
            return maps.reshape(rows, -1, *maps.shape[1:]), True
        if form == "loop":
            one = partial(library_convolution, stride=stride, groups=groups)
            if own_maps:
                return lax.map(lambda row: one(*row), (x, weight)), True
            return lax.map(lambda kernel: one(x, kernel), weight), True
        product = partial(_im2col_product, at_once=np.inf) if groups == 1 else _shift_and_add
        return jax.vmap(partial(product, stride=stride), (0 if own_maps else None, 0))(x, weight), True

    return convolved(x, weight)


def library_convolution(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int, groups: int = 1) -> Maps:
    """XLA's own convolution, NHWC and HWIO."""
    pad = weight.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        weight,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _library_forward(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int) -> Maps:
    """XLA's convolution, whose gradients are those of im2col: on a CPU XLA's take ten times as long."""
    return library_convolution(x, weight, stride)


def _library_backward(stride: int, given: tuple[Array, Array], gradient: Maps) -> tuple[Array, Array]:
    return jax.vjp(lambda x, weight: _im2col_product(x, weight, stride, GRADIENT_BYTES), *given)[1](gradient)


_library_forward.defvjp(lambda x, weight, stride: (library_convolution(x, weight, stride), (x, weight)), _library_backward)


def _shifted_views(x: Maps, size: int, stride: int) -> Iterator[Maps]:
    """What each of the kernel's size x size taps reads of the maps, row by row."""
    pad = size // 2
    height, width = ((n - 1) // stride + 1 for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for row in range(size):
        for column in range(size):
            stop = (x.shape[0], row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, x.shape[3])
            yield lax.slice(x, (0, row, column, 0), stop, (1, stride, stride, 1))


def _depthwise_on_cpu(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """The form with fewest products; in micro-batches if the whole batch does not fit the caches."""
    if x.shape[1] * x.shape[2] < weight.shape[0] ** 2:
        return _toeplitz_product(x, weight, stride)
    size = _micro_batch_size(x)
    if size == x.shape[0]:
        return _shift_and_add(x, weight, stride)
    return concatenate_micro_batches(map_micro_batches(lambda x: _shift_and_add(x, weight, stride), size, x))


CACHED_BYTES = 2**20
"""Bytes of a convolution's input on a CPU above which micro-batches are up to 5 times as fast."""


def _micro_batch_size(x: Maps) -> Any:
    """The largest divisor of the batch size whose examples fit CACHED_BYTES; at least two.

    One example is slow in a loop: XLA then runs parts of each step over the loop's whole result.
    """
    batch = x.shape[0]
    # The batch size of an exported network may be symbolic.
    if not isinstance(batch, int) or x.size * x.dtype.itemsize <= 2 * CACHED_BYTES:
        return batch
    return largest_divisor(batch, x.size * x.dtype.itemsize // batch, CACHED_BYTES, minimum=2)


def _shift_and_add(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """Depthwise convolution as a sum over the kernel's taps, in float32."""
    size = weight.shape[0]
    taps = weight.reshape(size * size, 1, 1, 1, -1).astype(jnp.float32)
    total = None
    for tap, shifted in zip(taps, _shifted_views(x, size, stride), strict=True):
        product = shifted.astype(jnp.float32) * tap
        total = product if total is None else total + product
    assert total is not None
    return total.astype(x.dtype)


def _toeplitz_product(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """Depthwise convolution by a Toeplitz matrix, every pixel times its tap for each output: for fewer pixels than taps."""
    size, channels = weight.shape[0], x.shape[3]
    rows, columns = (_tap_indices(n, size, stride) for n in x.shape[1:3])
    beyond = size * size
    tap = np.where((rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :], beyond,
                   rows[:, None, :, None] * size + columns[None, :, None, :])  # fmt: skip
    shape = (x.shape[0], rows.shape[1], columns.shape[1], channels)
    taps = jnp.concatenate([weight.reshape(beyond, channels), jnp.zeros((1, channels), weight.dtype)])
    matrix = taps[tap.reshape(x.shape[1] * x.shape[2], -1)].astype(jnp.float32)
    pixels = x.reshape(x.shape[0], -1, 1, channels).astype(jnp.float32)
    total = pixels[:, 0] * matrix[None, 0]
    for i in range(1, len(matrix)):
        total += pixels[:, i] * matrix[None, i]
    return total.reshape(shape).astype(x.dtype)


def _tap_indices(pixels: int, size: int, stride: int) -> Int[np.ndarray, "pixels outputs"]:
    """Along one axis, the kernel's tap that multiplies a pixel for an output; -1: none."""
    outputs = (pixels - 1) // stride + 1
    tap = np.arange(pixels)[:, None] - stride * np.arange(outputs)[None] + size // 2
    return np.where(tap < size, tap, -1)


GRADIENT_BYTES = 2**25
"""Bytes of patches at once in gradients: every part's gradient of the kernel is added up, which takes time."""

PATCHES_BYTES = 2**23
"""Bytes of all images' patches (or the kernel's bytes, if more) above which im2col of one image at a time is 3 times as fast
on a CPU."""


def _taps_inside(length: int, size: int, stride: int) -> range:
    """Along one axis, the kernel's taps that read a pixel of some output, and not only padding."""
    pad, last = size // 2, (length - 1) // stride * stride
    return range(max(0, pad - last), min(size, length + pad))


def _im2col_product(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int, at_once: float = 0.0) -> Maps:
    """Dense convolution by im2col: patches times the kernel as a matrix.

    Where all images' patches are too many, one image at a time, or as many as have patches of `at_once` bytes.
    """
    size, _, inputs, outputs = weight.shape
    rows, columns = (_taps_inside(length, size, stride) for length in x.shape[1:3])
    taps = len(rows) * len(columns)
    if taps < size**2:  # Small maps: the others read padding only.
        weight = weight[rows.start : rows.stop, columns.start : columns.stop]
    matrix = weight.reshape(taps * inputs, outputs)

    def product(x: Maps) -> Maps:
        views = [view for i, view in enumerate(_shifted_views(x, size, stride)) if i // size in rows and i % size in columns]
        return jnp.concatenate(views, axis=-1) @ matrix

    max_bytes = max(PATCHES_BYTES, matrix.size * matrix.dtype.itemsize)
    # The batch size of an exported network may be symbolic.
    if not isinstance(x.shape[0], int) or x.size // stride**2 * size**2 * x.dtype.itemsize <= max_bytes:
        return product(x)
    few = largest_divisor(x.shape[0], x[0].size // stride**2 * size**2 * x.dtype.itemsize, at_once)
    return concatenate_micro_batches(lax.map(product, x.reshape(-1, few, *x.shape[1:])))


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "h_swish": lambda x: x * jax.nn.relu6(x + 3) / 6,
    "h_sigmoid": lambda x: jax.nn.relu6(x + 3) / 6,
}
