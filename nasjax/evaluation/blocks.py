"""Blocks of examples to be scored: each fits memory, and holds examples of one bucket."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nasjax.tasks import Split


class Block(NamedTuple):
    """Batches of examples: all leaves are (batches, batch, …); examples of weight 0 are padding."""

    inputs: PyTree[Array | np.ndarray]
    targets: PyTree[Array | np.ndarray]
    weights: Float[Array | np.ndarray, "batches batch"]


def even(number: int, limit: int) -> int:
    """The part size that splits `number` most evenly into as few parts of at most `limit` as possible."""
    return -(-number // -(-number // limit))


def example_bytes(inputs: PyTree) -> int:
    """Bytes of one example of inputs (arrays or shapes), batch first."""
    return sum(prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(inputs))


def batches_per_block(inputs: PyTree, number: int, size: int, room: float) -> int:
    """The number of batches of `size` in a block of at most `room` bytes; even blocks need less padding."""
    needed = -(-number // size)
    fit = int(max(1, room // (size * example_bytes(inputs))))
    return even(needed, fit)


def blocks_by_step(
    split: Split, size: int, each: int, step: int | None = None, order: np.ndarray | None = None
) -> list[list[Block]]:
    """The blocks of every `step` examples (None: all), taken in `order`: each of `each` batches of `size`, of one bucket.

    Incomplete blocks are padded with zeros of weight 0.
    """
    order = np.arange(len(split)) if order is None else order
    step = step or len(split)
    steps = []
    for start in range(0, len(split), step):
        rows = order[start : start + step]
        buckets = [rows] if split.bucket is None else _by_bucket(rows, split.bucket)
        steps.append([
            _block(split, part[first : first + each * size], size, each)
            for part in buckets
            for first in range(0, len(part), each * size)
        ])  # fmt: skip
    return steps


def _by_bucket(rows: Int[np.ndarray, " rows"], bucket: Int[np.ndarray, " n"]) -> Sequence[Int[np.ndarray, " part"]]:
    return [rows[bucket[rows] == length] for length in np.unique(bucket[rows])]


def _block(split: Split, rows: Int[np.ndarray, " rows"], size: int, each: int) -> Block:
    """The block of these examples, cut to the padded length of their bucket."""
    missing = each * size - len(rows)
    longest = None if split.bucket is None else int(split.bucket.max())
    length = None if split.bucket is None else int(split.bucket[rows[0]])

    def batched(leaf: np.ndarray) -> np.ndarray:
        part = np.asarray(leaf)[rows]
        if longest is not None and part.ndim > 1 and part.shape[1] == longest:
            part = part[:, :length]
        padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
        return padded.reshape(each, size, *part.shape[1:])

    inputs, targets = jax.tree.map(batched, (split.inputs, split.targets))
    weights = np.concatenate([np.ones(len(rows), np.float32), np.zeros(missing, np.float32)])
    return Block(inputs, targets, weights.reshape(each, size))
