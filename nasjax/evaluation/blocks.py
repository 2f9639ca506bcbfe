"""The examples that are scored, in blocks that fit the memory; those of one bucket together."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nasjax.tasks import Split


class Block(NamedTuple):
    """Batches of examples: all leaves are (batches, batch, …); examples of weight 0 only fill the block up."""

    inputs: PyTree[Array | np.ndarray]
    targets: PyTree[Array | np.ndarray]
    weights: Float[Array | np.ndarray, "batches batch"]


def even(number: int, most: int) -> int:
    """The size of parts of at most `most`, as even as can be."""
    return -(-number // -(-number // most))


def example_bytes(inputs: PyTree) -> int:
    """Bytes of one example of inputs (arrays or shapes) with the examples in front."""
    return sum(prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(inputs))


def batches_per_block(inputs: PyTree, number: int, size: int, room: float) -> int:
    """How many batches of `size` a block has, for blocks of at most `room` bytes: as even as can be, less to fill up."""
    needed = -(-number // size)
    fit = int(max(1, room // (size * example_bytes(inputs))))
    return even(needed, fit)


def blocks_by_step(
    split: Split, size: int, each: int, step: int | None = None, order: np.ndarray | None = None
) -> list[list[Block]]:
    """For every `step` examples (all), taken in `order`, their blocks of at most `each` batches of `size`.

    What is missing to a whole block is filled up with zeros of weight 0. A block holds examples of one bucket.
    """
    order = np.arange(len(split)) if order is None else order
    step = step or len(split)
    found = []
    for start in range(0, len(split), step):
        rows = order[start : start + step]
        buckets = [rows] if split.bucket is None else _by_bucket(rows, split.bucket)
        found.append([
            _block(split, part[first : first + each * size], size, each)
            for part in buckets
            for first in range(0, len(part), each * size)
        ])  # fmt: skip
    return found


def _by_bucket(rows: Int[np.ndarray, " rows"], bucket: Int[np.ndarray, " n"]) -> Sequence[Int[np.ndarray, " part"]]:
    return [rows[bucket[rows] == length] for length in np.unique(bucket[rows])]


def _block(split: Split, rows: Int[np.ndarray, " rows"], size: int, each: int) -> Block:
    missing = each * size - len(rows)
    longest = None if split.bucket is None else int(split.bucket.max())
    needed = None if split.bucket is None else int(split.bucket[rows[0]])

    def shaped(leaf: np.ndarray) -> np.ndarray:
        part = np.asarray(leaf)[rows]
        if longest is not None and part.ndim > 1 and part.shape[1] == longest:
            part = part[:, :needed]
        filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
        return filled.reshape(each, size, *part.shape[1:])

    inputs, targets = jax.tree.map(shaped, (split.inputs, split.targets))
    weights = np.concatenate([np.ones(len(rows), np.float32), np.zeros(missing, np.float32)])
    return Block(inputs, targets, weights.reshape(each, size))
