"""Convolutions with symmetric padding (kernel // 2), each in the form that the platform runs fastest.

XLA's CPU backend runs grouped convolutions, and those with few input channels, tens of times slower than sums of shifted
products; accelerators run the library's convolution.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from nasjax.supernets.cpu.micro_batches import in_parts, joined, largest_part

Maps = Float[Array, "batch _height _width _channels"]
"""NHWC; a layer may change all but the batch."""


def pointwise(x: Maps, weight: Float[Array, "1 1 inputs outputs"]) -> Maps:
    """1 x 1 convolution of stride 1: one matrix product."""
    return x @ weight[0, 0]


OWN, SHARED = 1024, 72
"""How many numbers each result of a convolution may depend on for a product of patches to be the quicker form on a CPU:
where each network of a population has a kernel of its own, which XLA's convolution is slow with, and where all share one."""


def convolve(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int, own: bool = False) -> Maps:
    """Dense convolution, NHWC and HWIO; `own` says that each network of a population may have a kernel of its own."""
    numbers = weight.size // weight.shape[3]
    pixels = ((x.shape[1] - 1) // stride + 1) * ((x.shape[2] - 1) // stride + 1)
    product = numbers <= (OWN if own else SHARED) or pixels < weight.shape[0] ** 2
    return lax.platform_dependent(
        x,
        weight,
        cpu=lambda x, w: _patches_product(x, w, stride) if product else library_convolution(x, w, stride),
        default=lambda x, w: library_convolution(x, w, stride),
    )


def depthwise(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """One filter a channel."""
    return lax.platform_dependent(
        x,
        weight,
        cpu=lambda x, w: _depthwise_on_cpu(x, w, stride),
        default=lambda x, w: library_convolution(x, w, stride, groups=x.shape[-1]),
    )


def library_convolution(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int, groups: int = 1) -> Maps:
    """XLA's own convolution."""
    pad = weight.shape[0] // 2
    return lax.conv_general_dilated(
        x,
        weight,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _shifted(x: Maps, size: int, stride: int) -> Iterator[Maps]:
    """The image as each of the kernel's size x size taps sees it, row by row."""
    pad = size // 2
    height, width = ((n - 1) // stride + 1 for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for row in range(size):
        for column in range(size):
            stop = (x.shape[0], row + (height - 1) * stride + 1, column + (width - 1) * stride + 1, x.shape[3])
            yield lax.slice(x, (0, row, column, 0), stop, (1, stride, stride, 1))


def _depthwise_on_cpu(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """Whichever form has fewest products, over few pictures at a time where all together leave the caches."""
    if x.shape[1] * x.shape[2] < weight.shape[0] ** 2:
        return _pixels_product(x, weight, stride)
    few = _fit(x)
    if few == x.shape[0]:
        return _shift_and_add(x, weight, stride)
    return joined(in_parts(lambda x: _shift_and_add(x, weight, stride), few, x))


CACHED_BYTES = 2**20
"""What a convolution's pictures may take together on a CPU; above it, fewer at a time are up to 5 times as quick."""


def _fit(x: Maps) -> Any:
    """How many pictures CACHED_BYTES holds, out of those numbers that part the batch evenly; two at least.

    One alone is slow in a loop: what XLA makes of it then runs over the loop's result as a whole.
    """
    batch = x.shape[0]
    # An exported network may leave the number of pictures open.
    if not isinstance(batch, int) or x.size * x.dtype.itemsize <= 2 * CACHED_BYTES:
        return batch
    return largest_part(batch, x.size * x.dtype.itemsize // batch, CACHED_BYTES, least=2)


def _shift_and_add(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    size = weight.shape[0]
    taps = weight.reshape(size * size, 1, 1, 1, -1)
    total = None
    for tap, shifted in zip(taps, _shifted(x, size, stride), strict=True):
        total = shifted * tap if total is None else total + shifted * tap
    assert total is not None
    return total


def _pixels_product(x: Maps, weight: Float[Array, "size size 1 channels"], stride: int) -> Maps:
    """Every pixel times its taps in all results, a Toeplitz matrix: for fewer pixels than taps."""
    size, channels = weight.shape[0], x.shape[3]
    rows, columns = (_taps(n, size, stride) for n in x.shape[1:3])
    beyond = size * size
    tap = np.where((rows < 0)[:, None, :, None] | (columns < 0)[None, :, None, :], beyond,
                   rows[:, None, :, None] * size + columns[None, :, None, :])  # fmt: skip
    shape = (x.shape[0], rows.shape[1], columns.shape[1], channels)
    taps = jnp.concatenate([weight.reshape(beyond, channels), jnp.zeros((1, channels), weight.dtype)])
    matrix = taps[tap.reshape(x.shape[1] * x.shape[2], -1)]
    pixels = x.reshape(x.shape[0], -1, 1, channels)
    total = pixels[:, 0] * matrix[None, 0]
    for i in range(1, len(matrix)):
        total += pixels[:, i] * matrix[None, i]
    return total.reshape(shape)


def _taps(pixels: int, size: int, stride: int) -> Int[np.ndarray, "pixels results"]:
    """Along one axis, which tap a pixel meets in which result; -1: none."""
    results = (pixels - 1) // stride + 1
    tap = np.arange(pixels)[:, None] - stride * np.arange(results)[None] + size // 2
    return np.where(tap < size, tap, -1)


PATCHES_BYTES = 2**23
"""What the patches of all pictures may take together, or as much as the kernel; above it, one picture's at a time are 3
times as quick on a CPU."""


def _patches_product(x: Maps, weight: Float[Array, "size size inputs outputs"], stride: int) -> Maps:
    size, _, inputs, outputs = weight.shape
    matrix = weight.reshape(size * size * inputs, outputs)

    def product(x: Maps) -> Maps:
        return jnp.concatenate(list(_shifted(x, size, stride)), axis=-1) @ matrix

    most = max(PATCHES_BYTES, matrix.size * matrix.dtype.itemsize)
    # An exported network may leave the number of pictures open.
    if not isinstance(x.shape[0], int) or x.size // stride**2 * size**2 * x.dtype.itemsize <= most:
        return product(x)
    return lax.map(lambda picture: product(picture[None])[0], x)


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "h_swish": lambda x: x * jax.nn.relu6(x + 3) / 6,
    "h_sigmoid": lambda x: jax.nn.relu6(x + 3) / 6,
}
