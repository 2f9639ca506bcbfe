"""Initial weights, drawn by programs for a few sizes: a network has a hundred shapes, each of which would be compiled."""

from functools import partial
from math import prod

import jax
import numpy as np
from jaxtyping import Array, Float

from nasjax.types import PRNGKey


def normal(key: PRNGKey, shape: tuple[int, ...], deviation: float) -> Float[Array, "..."]:
    """Normal draws of mean 0, equal to `jax.random.normal`'s; compiled for powers of two only."""
    number = prod(shape)
    drawn = _normal(key, max(2**16, 1 << (number - 1).bit_length()))
    # A draw does not depend on the number of draws. NumPy slices without compiling; with a traced key it cannot.
    values = drawn if isinstance(drawn, jax.core.Tracer) else np.asarray(drawn)
    return jax.device_put(values[:number].reshape(shape) * np.float32(deviation))


@partial(jax.jit, static_argnums=1)
def _normal(key: PRNGKey, number: int) -> Float[Array, " number"]:
    return jax.random.normal(key, (number,), np.float32)


def full(width: int, value: float) -> Float[Array, " width"]:
    """A vector that repeats one value."""
    return jax.device_put(np.full(width, value, np.float32))


def identity(size: int) -> Float[Array, "size size"]:
    """The identity matrix."""
    return jax.device_put(np.eye(size, dtype=np.float32))
