"""Micro-batches: on a CPU, layers are up to 5 times as fast if their activations stay in its caches."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from nasjax.host import processors


def micro_batch_size(tree: PyTree, cache_bytes: float) -> int:
    """The number of examples of `tree` (arrays or shapes, batch first) in a micro-batch: `cache_bytes` for each processor.

    At least one, and a divisor of the batch size; the whole batch if JAX does not run on a CPU.
    """
    leaves = jax.tree.leaves(tree)
    batch = leaves[0].shape[0]
    if jax.default_backend() != "cpu":
        return batch
    example_bytes = sum(prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in leaves)
    return largest_divisor(batch, example_bytes, cache_bytes * processors())


def largest_divisor(batch: int, example_bytes: int, max_bytes: float, minimum: int = 1) -> int:
    """The largest divisor of `batch`, from `minimum` on, so many of whose examples take at most `max_bytes`.

    `batch` itself if there is none.
    """
    fit = max(minimum, int(max_bytes // max(example_bytes, 1)))
    return max((size for size in range(minimum, min(fit, batch) + 1) if batch % size == 0), default=batch)


def map_micro_batches(function: Callable[..., Any], size: int, *trees: PyTree) -> Any:
    """`function` of one micro-batch of `size` examples after the other; results are stacked along a new first axis."""
    # Sizes are spelled out: of empty leaves, such as the cache of a layer that is left out, -1 would be unknown.
    micro_batches = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] // size, size, *leaf.shape[1:]), trees)
    first = next(leaf for leaf in jax.tree.leaves(micro_batches) if leaf.size)
    run = jax.jit(function)  # Traced once, for its shapes too.

    def result(i: int | Int[Array, ""]) -> Any:
        return run(*jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, i, keepdims=False), micro_batches))

    # The loop overwrites these. Zeros, as in `lax.map`, XLA would make once for all such loops, and copy for each.
    filler = first.reshape(-1)[0]
    initial = jax.tree.map(
        lambda shape: jnp.full((len(first), *shape.shape), filler.astype(shape.dtype)), jax.eval_shape(result, 0)
    )

    def store(i: Int[Array, ""], results: Any) -> Any:
        return jax.tree.map(lambda stack, new: lax.dynamic_update_index_in_dim(stack, new, i, 0), results, result(i))

    return lax.fori_loop(0, len(first), store, initial)


def concatenate_micro_batches(tree: PyTree) -> Any:
    """Results of `map_micro_batches`, (micro-batches, size, …), as one batch: (batch, …)."""
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), tree)
