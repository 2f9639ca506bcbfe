"""Forms of layers on accelerators, none of them measured yet: programs that are traced within `using` have them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

VMAPPED = ("library", "loop", "products")
"""Forms of convolutions under `vmap` where every row of a population has its own kernel: XLA's convolution in as many
groups; one convolution after another; batched matrix products, and sums of shifted products."""


@dataclass(frozen=True)
class Forms:
    """`vmapped`: one of VMAPPED, on accelerators. `one_pass`: moments of maps that are read once, on accelerators.

    `folded`: where statistics are known, kernels instead of maps are multiplied by the gains of batch norms, so that
    libraries can add the shift and take the activation in the convolution's epilogue.
    """

    vmapped: str = "library"
    one_pass: bool = False
    folded: bool = False


_current: ContextVar[Forms | None] = ContextVar("forms of layers", default=None)


def current() -> Forms:
    """The forms that programs are traced with now."""
    return _current.get() or Forms()


@contextmanager
def using(forms: Forms) -> Iterator[None]:
    """Programs that are traced within have these forms."""
    token = _current.set(forms)
    try:
        yield
    finally:
        _current.reset(token)
