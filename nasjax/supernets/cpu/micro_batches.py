"""Pictures few at a time: on a CPU what stays in its caches is up to 5 times as quick as what all pictures take together."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from nasjax.host import processors


def together(tree: PyTree, most: float) -> int:
    """How many pictures of `tree`, batch first, to take at a time: those of which each processor gets `most` bytes.

    One at least, out of those numbers that part the batch evenly; all where this is not a CPU.
    """
    leaves = jax.tree.leaves(tree)
    batch = leaves[0].shape[0]
    if jax.default_backend() != "cpu":
        return batch
    each = sum(prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in leaves)
    return largest_part(batch, each, most * processors())


def largest_part(batch: int, each: int, most: float, least: int = 1) -> int:
    """The largest divisor of `batch` that `most` bytes hold so many of, `each` bytes apiece, among `least` and more."""
    fit = max(least, int(most // max(each, 1)))
    return max((part for part in range(least, min(fit, batch) + 1) if batch % part == 0), default=batch)


def in_parts(function: Callable[..., Any], few: int, *trees: PyTree) -> Any:
    """`function` of `few` pictures after the other; results with the number of parts in front."""
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, few, *leaf.shape[1:]), trees)
    first = jax.tree.leaves(parts)[0]
    run = jax.jit(function)  # Traced once, for its shapes too.

    def part(i: Any) -> Any:
        return run(*jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), parts))

    # Overwritten, all of it. Zeros, as `lax.map` begins with, XLA makes once for all such loops, and copies for each.
    anything = first.reshape(-1)[0]
    nothing = jax.tree.map(
        lambda shape: jnp.full((len(first), *shape.shape), anything.astype(shape.dtype)), jax.eval_shape(part, 0)
    )

    def add(i: Any, found: Any) -> Any:
        return jax.tree.map(lambda whole, new: lax.dynamic_update_index_in_dim(whole, new, i, 0), found, part(i))

    return lax.fori_loop(0, len(first), add, nothing)


def joined(tree: PyTree) -> Any:
    """Parts put together again, batch first."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
