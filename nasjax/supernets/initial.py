"""First weights, by programs for few sizes: a network has a hundred shapes, and each would compile."""

from functools import partial
from math import prod

import jax
import numpy as np
from jaxtyping import Array, Float

from nasjax.types import PRNGKey


def normal(key: PRNGKey, shape: tuple[int, ...], deviation: float) -> Float[Array, "..."]:
    """Normal draws around 0: those of `jax.random.normal`, made by programs for powers of two."""
    number = prod(shape)
    drawn = _normal(key, max(2**16, 1 << (number - 1).bit_length()))
    # What is drawn at a place does not depend on how many are. NumPy cuts without compiling; a traced key has no values.
    cuttable = drawn if isinstance(drawn, jax.core.Tracer) else np.asarray(drawn)
    return jax.device_put(cuttable[:number].reshape(shape) * deviation)


@partial(jax.jit, static_argnums=1)
def _normal(key: PRNGKey, number: int) -> Float[Array, " number"]:
    return jax.random.normal(key, (number,))


def full(width: int, value: float) -> Float[Array, " width"]:
    """A vector of one value."""
    return jax.device_put(np.full(width, value, np.float32))


def identity(size: int) -> Float[Array, "size size"]:
    """The identity matrix."""
    return jax.device_put(np.eye(size, dtype=np.float32))
