"""Stable sorting inside jit, by 64-bit numbers that hold keys and their position.

XLA's CPU backend sorts one array of integers about six times as fast as an array together with positions.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from numpy import ndarray

Key = Float[Array | ndarray, " rows"] | Int[Array | ndarray, " rows"] | Bool[Array | ndarray, " rows"]
"""What rows are sorted by: NaN comes last; 0 and -0 are equal (and subnormal numbers, where a device has none)."""


def lexsort(keys: tuple[Key, ...]) -> Int[Array, " rows"]:
    """The stable order of rows by several keys, the most significant last, as `jnp.lexsort`.

    Keys that fit into one number together with a position share a sort: `narrow` those of few whole numbers.
    """
    free = 63 - _bits(len(keys[0]))
    order: Int[Array, " rows"] | None = None
    together: list[Array] = []
    left = free
    for key in map(jnp.asarray, keys):
        if together and _width(key) > left:
            order, together, left = _resorted(order, together), [], free
        together.append(key)
        left -= _width(key)
    return _resorted(order, together)


def argsort(key: Key) -> Int[Array, " rows"]:
    """The stable order of rows by one key, as `jnp.argsort`."""
    return lexsort((key,))


def narrow(key: Int[Array, " rows"], most: int) -> Int[Array, " rows"]:
    """Whole numbers from 0 to `most` in the narrowest type that holds them."""
    return key.astype(jnp.int8 if most < 2**7 else jnp.int16 if most < 2**15 else jnp.int32)


def _resorted(order: Int[Array, " rows"] | None, keys: list[Array]) -> Int[Array, " rows"]:
    """The rows in their `order` (None: as they come), sorted stably by keys that fit into one number with a position."""
    if keys[0].dtype.itemsize > 4:
        again = jnp.argsort(keys[0] if order is None else keys[0][order], stable=True).astype(jnp.int32)
        return again if order is None else order[again]
    number = len(keys[0])
    with jax.enable_x64(True):
        packed = jnp.zeros(number, jnp.int64)
        for key in reversed(keys):
            packed = (packed << _width(key)) + _ordered_integers(key).astype(jnp.int64)
        packed = packed if order is None else packed[order]
        packed = (packed << _bits(number)) | jnp.arange(number, dtype=jnp.int64)
        again = (lax.sort(packed) & ((1 << _bits(number)) - 1)).astype(jnp.int32)
    return again if order is None else order[again]


def _bits(number: int) -> int:
    """Bits of a position among so many."""
    return max(number - 1, 0).bit_length()


def _width(key: Array) -> int:
    """Bits of a key, of which one is the sign, but for Booleans."""
    return 1 if key.dtype == bool else 32 if jnp.issubdtype(key.dtype, jnp.floating) else 8 * key.dtype.itemsize


def falses_first(mask: Bool[Array | ndarray, " rows"]) -> Int[Array, " rows"]:
    """The stable order of rows that puts those with False first; two cumulative sums are cheaper than a sort."""
    mask = jnp.asarray(mask)
    kept = jnp.cumsum(~mask, dtype=jnp.int32)
    places = jnp.where(mask, kept[-1:] + jnp.cumsum(mask, dtype=jnp.int32), kept) - 1
    return jnp.zeros(len(mask), jnp.int32).at[places].set(jnp.arange(len(mask), dtype=jnp.int32))


def _ordered_integers(key: Array) -> Int[Array, " rows"]:
    """Integers in the order of the key: the bits of floats, with the magnitude's bits of negative ones turned round."""
    if not jnp.issubdtype(key.dtype, jnp.floating):
        return key.astype(jnp.int32)
    key = key.astype(jnp.float32)
    key = jnp.where(jnp.isnan(key), jnp.nan, jnp.where(key == 0, 0, key))
    bits = lax.bitcast_convert_type(key, jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
