"""Layers whose widths and kernel sizes are elastic.

Every size is either a Python int (*static*: weights are sliced, and outputs are as narrow as the sub-network's) or a traced
scalar (*masked*: weights stay whole, and those beyond the size are set to zero. Activations are not masked: they are larger,
and XLA does not fuse their masking well in backward passes). The same arithmetic serves both, by `cut` and `mask`.
`narrow` slices the weights to static sizes, which is extraction (`layer.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from nasjax.supernets import forms
from nasjax.supernets.cpu.convolution import ACTIVATIONS, CACHED_BYTES, Maps, convolve, depthwise, pointwise
from nasjax.supernets.cpu.deferred_norm import DeferredNorm, apply_deferred
from nasjax.supernets.cpu.micro_batches import concatenate_micro_batches, map_micro_batches, micro_batch_size
from nasjax.supernets.initial import full, identity, normal
from nasjax.supernets.layer import Layer, Size
from nasjax.supernets.moments import moments


class Branching(NamedTuple):
    """A traced kernel size that a convolution branches over by `lax.switch`, one of `options` static in each branch."""

    options: tuple[int, ...]
    chosen: Int[Array, ""]


class Moments(NamedTuple):
    """Batch-norm statistics, padded to the layer's full width."""

    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Recalibrate:
    """Passed in place of statistics for re-calibration: batch norms use the batch's own, and no gradient is taken.

    On a CPU, convolutions then run in micro-batches. In training (None in place of statistics) they do not: gradients need
    all activations, so that loops would save nothing.
    """

    def get(self, name: str) -> "Recalibrate":
        """Returns itself, for every batch norm."""
        return self


RECALIBRATE = Recalibrate()


def cut(weight: Array, axis: int, size: Any) -> Array:
    """The first `size` entries along `axis` if the size is static, the whole array if it is traced.

    It is also whole for the symbolic sizes of exported programs, whose networks have nothing to cut.
    """
    if isinstance(size, int) and size != weight.shape[axis]:
        return lax.slice_in_dim(weight, 0, size, axis=axis)
    return weight


def mask(weight: Array, size: Size, beyond: float = 0.0) -> Array:
    """Sets entries from `size` on along the last axis to `beyond` if the size is traced; unchanged if it is static."""
    if isinstance(size, int):
        return weight
    inside = (jnp.arange(weight.shape[-1]) < size).reshape((1,) * (weight.ndim - 1) + (-1,))
    return jnp.where(inside, weight, jnp.asarray(beyond, weight.dtype))


def matmul(x: Float[Array, "*batch inputs"], weight: Float[Array, "inputs outputs"]) -> Float[Array, "*batch outputs"]:
    """Products in the type of the weights, added up in float32."""
    return jnp.matmul(x.astype(weight.dtype), weight, preferred_element_type=jnp.float32)


def pick(options: tuple[int, ...], index: Size) -> Size:
    """The option at a static or traced index."""
    if isinstance(index, int):
        return options[index]
    return jnp.asarray(options, jnp.int32)[index]


def make_divisible(value: Size, divisor: int = 8) -> Size:
    """`value` rounded to a multiple of `divisor`, never below nine tenths of it (the rounding of MobileNets)."""
    rounded = (value + divisor // 2) // divisor * divisor
    rounded = max(divisor, rounded) if isinstance(rounded, int) else jnp.maximum(divisor, rounded)
    short = 10 * rounded < 9 * value
    if isinstance(short, bool):
        return rounded + divisor * short
    return jnp.where(short, rounded + divisor, rounded)


def by_importance(importance: Float[Array, " units"], widths: Sequence[int]) -> Int[Array, " units"]:
    """The order of units by decreasing importance, each within its part: parts end at `widths`, and at the last unit."""
    part = jnp.zeros(len(importance), jnp.int32)
    for width in widths:
        part = part + (jnp.arange(len(importance)) >= width)
    return jnp.lexsort((-importance, part))


class Conv(Layer):
    """2-D convolution of elastic output width and kernel size, as wide as its input; by default without bias.

    It computes, and returns maps, in the type of its kernel.

    Smaller kernels are the centre of the next larger one, times a learned matrix (Once-for-All, arXiv:1908.09791, 3.3).
    Weights: `kernel` HWIO at full size, `transforms` one (small², small²) matrix for each smaller size, `bias` (outputs,).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernels: tuple[int, ...] = (1,),
        *,
        stride: int = 1,
        depthwise: bool = False,
        bias: bool = False,
        rngs: nnx.Rngs,
    ):
        self.kernels = tuple(sorted(kernels))
        self.stride = stride
        self.depthwise = depthwise
        size = self.kernels[-1]
        shape = (size, size, 1 if depthwise else inputs, outputs)
        fan_out = size * size * (1 if depthwise else outputs)
        self.kernel = nnx.Param(normal(rngs.params(), shape, (2 / fan_out) ** 0.5))
        self.bias = nnx.Param(full(outputs, 0)) if bias else None
        self.transforms = nnx.Dict(
            {f"to_{small}": nnx.Param(identity(small * small)) for small in reversed(self.kernels[:-1])}
        )

    def weights(self, width: Size, kernel: Size, inputs: int) -> Float[Array, "size size inputs outputs"]:
        """The kernel of a call: `kernel` pixels a side if that is static, else the largest size, padded with zeros."""
        weight = mask(cut(cut(self.kernel[...], 3, width), 2, 1 if self.depthwise else inputs), width)
        steps = [weight]
        for small in reversed(self.kernels[:-1]):
            if isinstance(kernel, int) and kernel > small:
                break
            weight = steps[-1]
            margin = (weight.shape[0] - small) // 2
            centre = weight[margin : margin + small, margin : margin + small].reshape(small * small, -1)
            steps.append((self.transforms[f"to_{small}"][...] @ centre).reshape(small, small, *weight.shape[2:]))
        if isinstance(kernel, int):
            return steps[-1]
        full = self.kernels[-1]
        margins = [(full - step.shape[0]) // 2 for step in steps]
        stack = jnp.stack([jnp.pad(s, ((m, m), (m, m), (0, 0), (0, 0))) for s, m in zip(steps, margins, strict=True)])
        return stack[jnp.argmax(jnp.asarray(self.kernels[::-1], jnp.int32) == kernel)]

    def __call__(self, x: Maps, width: Size | None = None, kernel: Size | Branching | None = None) -> Maps:
        return self.convolution(x.shape[-1], width, kernel)(x)

    def convolution(
        self,
        inputs: int,
        width: Size | None = None,
        kernel: Size | Branching | None = None,
        gain: Float[Array, " outputs"] | None = None,
    ) -> Callable[[Maps], Maps]:
        """The convolution of maps with `inputs` channels, as a function of the maps; its outputs times `gain`."""
        width = self.kernel.shape[3] if width is None else width
        kernel = self.kernels[-1] if kernel is None else kernel

        def scaled(weight: Array) -> Array:
            if gain is None:
                return weight
            gains = gain.reshape((1,) * (weight.ndim - 1) + (-1,))
            return (weight.astype(gain.dtype) * gains).astype(weight.dtype)

        bias = None
        if self.bias is not None:
            bias = scaled(mask(cut(self.bias[...], 0, width), width))[None, None, None].astype(self.kernel.dtype)
        if isinstance(kernel, Branching):
            weights = [scaled(self.weights(width, size, inputs)) for size in kernel.options]
            branches = [lambda x, weights, i=i: self._convolved(x, weights[i]) for i in range(len(weights))]

            def convolved(x: Maps) -> Maps:
                return lax.switch(kernel.chosen, branches, x, weights)
        else:
            self.note(width=width, kernel=kernel, inputs=inputs)
            weight = scaled(self.weights(width, kernel, inputs))

            def convolved(x: Maps) -> Maps:
                return self._convolved(x, weight, own=not (isinstance(width, int) and isinstance(kernel, int)))

        return convolved if bias is None else lambda x: convolved(x) + bias

    def output_shape(self, x: Maps | jax.ShapeDtypeStruct, width: Size | None) -> jax.ShapeDtypeStruct:
        """The shape of the outputs for maps of the shape of `x`; as wide as the layer if `width` is traced."""
        height, columns = ((n - 1) // self.stride + 1 for n in x.shape[1:3])
        width = width if isinstance(width, int) else self.kernel.shape[3]
        return jax.ShapeDtypeStruct((x.shape[0], height, columns, width), self.kernel.dtype)

    def _convolved(self, x: Maps, weight: Float[Array, "size size inputs outputs"], own: bool = False) -> Maps:
        x = x.astype(weight.dtype)
        if self.depthwise:
            return depthwise(x, weight, self.stride)
        if weight.shape[0] == 1 and self.stride == 1:
            return pointwise(x, weight)
        return convolve(x, weight, self.stride, own)

    def centre_small_kernels(self) -> None:
        """Makes smaller kernels the centre of the largest one, as in a new network; in place."""
        for matrix in self.transforms.values():
            matrix[...] = jnp.eye(len(matrix[...]))

    def importance(self) -> Float[Array, " inputs"]:
        """The sum of absolute weights of every input channel."""
        return jnp.abs(self.kernel[...]).sum((0, 1, 3))

    def reorder(self, outputs: Int[Array, " outputs"] | None = None, inputs: Int[Array, " inputs"] | None = None) -> None:
        """Reorders output or input channels; in place. The outputs of a depthwise convolution are its inputs."""
        if outputs is not None:
            self.kernel[...] = self.kernel[...][..., outputs]
            if self.bias is not None:
                self.bias[...] = self.bias[...][outputs]
        if inputs is not None:
            self.kernel[...] = self.kernel[...][:, :, inputs]

    def narrow(self, *, width: int, kernel: int, inputs: int) -> None:  # type: ignore[override]
        self.kernel = nnx.Param(self.weights(width, kernel, inputs))
        self.bias = None if self.bias is None else nnx.Param(cut(self.bias[...], 0, width))
        self.kernels = (kernel,)
        self.transforms = nnx.Dict({})


class Dense(Layer):
    """Affine map of elastic output width, as wide as its input. Weights: `kernel` (in, out), `bias` (out,).

    It multiplies in the kernel's type; sums and results are float32.
    """

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        bound = inputs**-0.5
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), (inputs, outputs), jnp.float32, -bound, bound))
        self.bias = nnx.Param(full(outputs, 0))

    def __call__(self, x: Float[Array, "*batch inputs"], width: Size | None = None) -> Float[Array, "*batch outputs"]:
        width = self.kernel.shape[1] if width is None else width
        self.note(width=width, inputs=x.shape[-1])
        weight = mask(cut(cut(self.kernel[...], 0, x.shape[-1]), 1, width), width)
        bias = mask(cut(self.bias[...], 0, width), width)
        return matmul(x, weight) + bias.reshape((1,) * (x.ndim - 1) + (-1,))

    def importance(self) -> Float[Array, " inputs"]:
        """The sum of absolute weights of every input."""
        return jnp.abs(self.kernel[...]).sum(1)

    def reorder(self, outputs: Int[Array, " outputs"] | None = None, inputs: Int[Array, " inputs"] | None = None) -> None:
        """Reorders outputs or inputs; in place."""
        if outputs is not None:
            self.kernel[...], self.bias[...] = self.kernel[...][:, outputs], self.bias[...][outputs]
        if inputs is not None:
            self.kernel[...] = self.kernel[...][inputs]

    def narrow(self, *, width: int, inputs: int) -> None:  # type: ignore[override]
        self.kernel = nnx.Param(cut(cut(self.kernel[...], 0, inputs), 1, width))
        self.bias = nnx.Param(cut(self.bias[...], 0, width))


class BatchNorm(Layer):
    """Batch normalisation of elastic width over all axes but the last.

    Without statistics (None or RECALIBRATE) it normalises with those of the batch (biased variance) and returns them; with
    statistics it uses and returns those. Statistics are padded to the layer's full width, and float32, as is the arithmetic;
    maps come and go in one type. Weights: `scale`, `bias`; stored statistics: `mean`, `variance`.
    """

    def __init__(self, width: int, *, epsilon: float = 1e-5):
        self.epsilon = epsilon
        self.scale = nnx.Param(full(width, 1))
        self.bias = nnx.Param(full(width, 0))
        self.mean = nnx.BatchStat(full(width, 0))
        self.variance = nnx.BatchStat(full(width, 1))

    def stored(self) -> Moments:
        """The stored statistics."""
        return Moments(self.mean[...], self.variance[...])

    def __call__(
        self, x: Maps, statistics: Moments | Recalibrate | None, width: Size | None = None, activation: str = "none"
    ) -> tuple[Maps, Moments]:
        if not isinstance(statistics, Moments):
            statistics = self.padded(*moments(x), width)
        return self.normalisation(x.shape[-1], statistics, width, activation)(x), statistics

    def padded(self, mean: Float[Array, " narrow"], variance: Float[Array, " narrow"], width: Size | None = None) -> Moments:
        """Moments padded to the layer's full width, with mean 0 and variance 1."""
        narrow = mean.shape[0]
        beyond = (0, self.mean.shape[0] - narrow)
        variance = mask(variance, narrow if width is None else width, 1.0)
        return Moments(jnp.pad(mean, beyond), jnp.pad(variance, beyond, constant_values=1))

    def normalisation(
        self, narrow: int, statistics: Moments, width: Size | None = None, activation: str = "none"
    ) -> Callable[[Maps], Maps]:
        """Normalisation and activation of maps with `narrow` channels, as a function of the maps."""
        gain, shift = self.gain_and_shift(narrow, statistics, width)

        def normalise(x: Maps) -> Maps:
            ones = (1,) * (x.ndim - 1)
            normalised = x.astype(gain.dtype) * gain.reshape(*ones, -1) + shift.reshape(*ones, -1)
            return ACTIVATIONS[activation](normalised).astype(x.dtype)

        return normalise

    def gain_and_shift(
        self, narrow: int, statistics: Moments, width: Size | None = None
    ) -> tuple[Float[Array, " narrow"], Float[Array, " narrow"]]:
        """What each of the `narrow` channels is multiplied by, and what is added then."""
        width = narrow if width is None else width
        self.note(width=narrow)
        mean, variance = cut(statistics.mean, 0, narrow), cut(statistics.variance, 0, narrow)
        gain = mask(cut(self.scale[...], 0, narrow) * lax.rsqrt(variance + self.epsilon), width)
        return gain, mask(cut(self.bias[...], 0, narrow), width) - mean * gain

    def reorder(self, order: Int[Array, " channels"]) -> None:
        """Reorders channels; in place."""
        for name in ("scale", "bias", "mean", "variance"):
            variable = getattr(self, name)
            variable[...] = variable[...][order]

    def narrow(self, *, width: int) -> None:  # type: ignore[override]
        for name in ("scale", "bias", "mean", "variance"):
            variable = getattr(self, name)
            setattr(self, name, type(variable)(cut(variable[...], 0, width)))


class ConvNorm(nnx.Module):
    """Convolution, batch norm, activation.

    On a CPU, re-calibration convolves large batches in micro-batches. `deferred` leaves batch norm and activation to the
    next layer, so that the maps go through memory once.
    """

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...] = (1,), *, activation: str = "none",
                 epsilon: float = 1e-5, rngs: nnx.Rngs, **options: Any):  # fmt: skip
        self.conv = Conv(inputs, outputs, kernels, rngs=rngs, **options)
        self.norm = BatchNorm(outputs, epsilon=epsilon)
        self.activation = activation

    def reorder(self, outputs: Int[Array, " outputs"]) -> None:
        """Reorders output channels; in place."""
        self.conv.reorder(outputs)
        self.norm.reorder(outputs)

    def __call__(
        self,
        x: Maps | DeferredNorm,
        statistics: Moments | Recalibrate | None,
        width: Size | None = None,
        kernel: Size | Branching | None = None,
    ) -> tuple[Maps, Moments]:
        x, used = self.deferred(x, statistics, width, kernel)
        return apply_deferred(x), used

    def deferred(
        self,
        x: Maps | DeferredNorm,
        statistics: Moments | Recalibrate | None,
        width: Size | None = None,
        kernel: Size | Branching | None = None,
    ) -> tuple[Maps | DeferredNorm, Moments]:
        """Outputs for a layer that reads maps with deferred norm; their norm is deferred if micro-batches were used."""
        given = x.raw if isinstance(x, DeferredNorm) else x
        if isinstance(statistics, Moments) and forms.current().folded:
            gain, shift = self.norm.gain_and_shift(self.conv.output_shape(given, width).shape[-1], statistics, width)
            maps = self.conv.convolution(given.shape[-1], width, kernel, gain)(apply_deferred(x))
            return ACTIVATIONS[self.activation](maps + shift.astype(maps.dtype)[None, None, None]), statistics
        convolve = self.conv.convolution(given.shape[-1], width, kernel)
        size = self._micro_batch_size(given, width) if isinstance(statistics, Recalibrate) else given.shape[0]
        if size == given.shape[0]:
            return self.norm(convolve(apply_deferred(x)), statistics, width, self.activation)

        def with_moments(maps: Maps) -> tuple[Maps, Float[Array, " channels"], Float[Array, " channels"]]:
            maps = convolve(maps)
            return maps, *moments(maps)

        if isinstance(x, DeferredNorm):
            raw, means, variances = x.map_micro_batches(with_moments, size)
        else:
            raw, means, variances = map_micro_batches(with_moments, size, x)
        mean = means.mean(0)
        used = self.norm.padded(mean, variances.mean(0) + jnp.square(means - mean[None]).mean(0), width)
        normalise = self.norm.normalisation(raw.shape[-1], used, width, self.activation)
        return DeferredNorm(concatenate_micro_batches(raw), normalise, size), used

    def _micro_batch_size(self, x: Maps, width: Size | None) -> int:
        """The examples of a micro-batch whose inputs, or outputs if these are larger, fit the caches."""
        weights = self.conv.kernel.size * self.conv.kernel.dtype.itemsize
        outputs = self.conv.output_shape(x, width)
        return micro_batch_size(x if x.size > outputs.size else outputs, max(CACHED_BYTES, weights))
