"""Pictures few at a time: on a CPU what stays in its caches is up to 5 times as quick as what all pictures take together."""

import os
from collections.abc import Callable
from math import prod
from typing import Any

import jax
from jax import lax
from jaxtyping import PyTree


def together(tree: PyTree, most: float) -> int:
    """How many pictures of `tree`, batch first, to take at a time: those of which each processor gets `most` bytes.

    One at least, out of those numbers that part the batch evenly; all where this is not a CPU.
    """
    leaves = jax.tree.leaves(tree)
    batch = leaves[0].shape[0]
    if jax.default_backend() != "cpu":
        return batch
    each = sum(prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in leaves)
    return largest_part(batch, each, most * _processors())


def largest_part(batch: int, each: int, most: float, least: int = 1) -> int:
    """The largest divisor of `batch` that `most` bytes hold so many of, `each` bytes apiece, among `least` and more."""
    fit = max(least, int(most // max(each, 1)))
    return max((part for part in range(least, min(fit, batch) + 1) if batch % part == 0), default=batch)


def in_parts(function: Callable[..., Any], few: int, *trees: PyTree) -> Any:
    """`function` of `few` pictures after the other; results with the number of parts in front."""
    return lax.map(lambda part: function(*part), jax.tree.map(lambda leaf: leaf.reshape(-1, few, *leaf.shape[1:]), trees))


def joined(tree: PyTree) -> Any:
    """Parts put together again, batch first."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def _processors() -> int:
    """How many this process may use, as XLA counts them: each has its own caches, and works on a part of what is taken."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
