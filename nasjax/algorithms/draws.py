"""Random numbers as `jax.random` draws them, in one pass, and by the row.

Threefry (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") hashes a key and an entry's index, so a few rows
need no others. JAX's program for CPUs passes over all entries five times, for four rounds of the hash each; one pass is
twice as fast.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from nasjax.types import PRNGKey

ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
"""Bits that odd and even groups of four rounds rotate by."""


def uniform_rows(
    key: PRNGKey, rows: Int[Array, " rows"], shape: tuple[int, ...], low: float = 0.0
) -> Float[Array, "rows columns"]:
    """Rows of `jax.random.uniform(key, shape, minval=low)`, which has two dimensions: numbers from `low` to 1, without 1."""
    if not _hashes_entries(key):
        return jax.random.uniform(key, shape, minval=low)[rows]
    entries = rows[:, None].astype(jnp.uint32) * jnp.uint32(shape[1]) + jnp.arange(shape[1], dtype=jnp.uint32)[None]
    mantissa = _threefry(jax.random.key_data(key), entries) >> 9
    unit = lax.bitcast_convert_type(mantissa | jnp.uint32(0x3F800000), jnp.float32) - 1
    return jnp.maximum(unit * (1 - low) + low, low)


def whole_numbers(key: PRNGKey, shape: tuple[int, ...], most: int) -> Int[Array, "..."]:
    """`jax.random.randint(key, shape, 0, most)`: the remainders of 64 random bits."""
    if not _hashes_entries(key):
        return jax.random.randint(key, shape, 0, most)
    entries = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    high, low = (_threefry(jax.random.key_data(one), entries) for one in jax.random.split(key))
    most = jnp.uint32(most)
    carried = jnp.uint32(2**16) % most
    return ((high % most * (carried * carried % most) + low % most) % most).astype(jnp.int32).reshape(shape)


def _hashes_entries(key: PRNGKey) -> bool:
    """Whether JAX draws each number from its index alone."""
    partitionable = getattr(jax.config, "jax_threefry_partitionable")  # noqa: B009 (unknown to type checkers)
    return str(jax.random.key_impl(key)) == "threefry2x32" and partitionable


def _threefry(key: UInt32[Array, "2"], counts: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Both words of Threefry-2x32 with 20 rounds of (0, count), combined by exclusive or."""
    keys = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA)
    left, right = jnp.full_like(counts, keys[0]), counts + keys[1]
    for group in range(5):
        for turn in ROTATIONS[group % 2]:
            left = left + right
            right = (right << turn | right >> (32 - turn)) ^ left
        left = left + keys[(group + 1) % 3]
        right = right + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return left ^ right
