"""Squeeze-and-excitation of elastic width (arXiv:1709.01507, as MobileNetV3 has it)."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float, Int

from nasjax.supernets.cpu.convolution import ACTIVATIONS, Maps
from nasjax.supernets.cpu.deferred_norm import DeferredNorm
from nasjax.supernets.cpu.micro_batches import concatenate_micro_batches
from nasjax.supernets.elastic import Conv, by_importance, make_divisible
from nasjax.supernets.layer import Size


class SqueezeExcite(nnx.Module):
    """Channel attention whose middle width follows the active width: make_divisible(width // 4)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        middle = make_divisible(width // 4)
        assert isinstance(middle, int)
        self.reduce = Conv(width, middle, bias=True, rngs=rngs)
        self.expand = Conv(middle, width, bias=True, rngs=rngs)

    def __call__(self, x: Maps | DeferredNorm, width: Size) -> Maps | DeferredNorm:
        """The maps, every channel scaled; a deferred norm stays deferred."""
        if not isinstance(x, DeferredNorm):
            return x * self.gains(x.mean((1, 2), keepdims=True), width)
        pooled = concatenate_micro_batches(x.map_micro_batches(lambda maps: maps.mean((1, 2), keepdims=True), x.size))
        return x._replace(normalise=lambda raw, gains: x.normalise(raw) * gains, gains=(self.gains(pooled, width),))

    def reorder(self, order: Int[Array, " channels"], widths: Sequence[int]) -> None:
        """Reorders channels, and sorts the middle layer's by importance, within those for `widths`; in place."""
        self.reduce.reorder(inputs=order)
        self.expand.reorder(outputs=order)
        middle = by_importance(self.expand.importance(), [make_divisible(width // 4) for width in widths])  # type: ignore
        self.reduce.reorder(outputs=middle)
        self.expand.reorder(inputs=middle)

    def gains(self, pooled: Float[Array, "batch 1 1 channels"], width: Size) -> Float[Array, "batch 1 1 channels"]:
        """The factor of each channel of each example."""
        middle = ACTIVATIONS["relu"](self.reduce(pooled, make_divisible(width // 4)))
        return ACTIVATIONS["h_sigmoid"](self.expand(middle, width))
