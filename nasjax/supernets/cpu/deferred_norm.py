"""Maps whose normalisation and activation are still to be taken."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from nasjax.supernets.cpu.convolution import Maps
from nasjax.supernets.cpu.micro_batches import in_parts


class Pending(NamedTuple):
    """Maps of which `finish` is still to be taken: where they are read, `few` pictures at a time, they are in a cache."""

    raw: Maps
    finish: Callable[..., Maps]
    few: int
    gains: tuple[Float[Array, "batch 1 1 channels"], ...] = ()
    """What `finish` takes beside, by picture."""

    def over(self, function: Callable[[Maps], Any], few: int) -> Any:
        """`function` of `few` pictures after the other; results with the number of parts in front."""
        return in_parts(lambda raw, *gains: function(self.finish(raw, *gains)), few, self.raw, *self.gains)


def finished(x: Maps | Pending) -> Maps:
    """The maps themselves."""
    return x.finish(x.raw, *x.gains) if isinstance(x, Pending) else x
