"""A tactic's state as bytes: the arrays of its pytree in NumPy's .npz format."""

import io
from typing import Any

import jax
import numpy as np


def dump_state(state: Any) -> bytes:
    """The leaves of a state; JAX keys as their data."""
    file = io.BytesIO()
    leaves = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(state))
    np.savez(file, *map(np.asarray, leaves))
    return file.getvalue()


def load_state(like: Any, data: bytes) -> Any:
    """The state that was dumped to `data`; `like` is a state of the same tactic, whose structure it has.

    Raises ValueError for bytes that are no such state.
    """
    leaves, structure = jax.tree.flatten(like)
    try:
        with np.load(io.BytesIO(data)) as file:
            arrays = [file[f"arr_{i}"] for i in range(len(leaves))]
    except Exception as error:  # A damaged file may raise anything in zipfile and NumPy.
        raise ValueError(f"the state of its tactic: {error}") from error
    return jax.tree.unflatten(structure, [_as_kind_of(leaf, array) for leaf, array in zip(leaves, arrays, strict=True)])


def _as_kind_of(leaf: Any, array: np.ndarray) -> Any:
    """The array as what `leaf` is: a JAX key, a JAX array or a NumPy array."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.asarray(array))
    return jax.numpy.asarray(array) if isinstance(leaf, jax.Array) else array


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
