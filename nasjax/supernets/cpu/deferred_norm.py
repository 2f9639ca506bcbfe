"""Feature maps with deferred batch norm and activation."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from nasjax.supernets.cpu.convolution import Maps
from nasjax.supernets.cpu.micro_batches import map_micro_batches


class DeferredNorm(NamedTuple):
    """Feature maps with deferred batch norm and activation.

    `normalise(raw, *gains)` applies both. The layer that reads the maps does so in micro-batches of `size` examples, while
    they are in a cache, so that they go through memory once.
    """

    raw: Maps
    normalise: Callable[..., Maps]
    size: int
    gains: tuple[Float[Array, "batch 1 1 channels"], ...] = ()
    """Further arguments of `normalise`, batch first: the gains of a squeeze-and-excitation."""

    def map_micro_batches(self, function: Callable[[Maps], Any], size: int) -> Any:
        """`function` of the normalised maps, `size` examples at a time; results are stacked along a new first axis."""
        return map_micro_batches(lambda raw, *gains: function(self.normalise(raw, *gains)), size, self.raw, *self.gains)


def apply_deferred(x: Maps | DeferredNorm) -> Maps:
    """The feature maps, batch norm and activation applied."""
    return x.normalise(x.raw, *x.gains) if isinstance(x, DeferredNorm) else x
