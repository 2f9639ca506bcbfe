"""Layers that can be narrowed to the sizes that they are called with, which is extraction."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from flax import nnx
from jaxtyping import Array, Int

from nasjax.errors import ConfigError

Size = int | Int[Array, ""]
"""A width or kernel size: static (int) or traced (int32 scalar)."""

_calls: ContextVar[dict[int, dict[str, int]] | None] = ContextVar("sizes of layers", default=None)


@contextmanager
def recording() -> Iterator[dict[int, dict[str, int]]]:
    """Records the static sizes of every layer's call, by `id` of the layer."""
    calls: dict[int, dict[str, int]] = {}
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


class Layer(nnx.Module):
    """A layer that can be narrowed to the sizes it was called with."""

    def note(self, **sizes: Size) -> None:
        """Records the sizes of this call within `recording()`. Raises ConfigError if an earlier call had others."""
        calls = _calls.get()
        if calls is None:
            return
        static: dict[str, int] = {name: size for name, size in sizes.items() if isinstance(size, int)}
        if calls.setdefault(id(self), static) != static:
            raise ConfigError(
                f"{type(self).__name__} was called twice, with sizes {calls[id(self)]} and {static}: it cannot be extracted"
            )

    def narrow(self, **sizes: Any) -> None:
        """Slices the weights to those that a call with these sizes reads; in place."""
        raise TypeError(f"{type(self).__name__} has no method `narrow`: it cannot be extracted")
