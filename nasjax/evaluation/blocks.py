"""Blocks of examples to be scored: each fits memory, and holds examples of one bucket."""

from math import prod
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from nasjax.tasks import Split
from nasjax.tasks.image_files import ImageFiles


class Block(NamedTuple):
    """Batches of examples: all leaves are (batches, batch, …); examples of weight 0 are padding.

    Images in files are decoded when the block, or one of its batches, is put on the devices.
    """

    inputs: PyTree[Array | np.ndarray | ImageFiles]
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
    split: Split, size: int, each: int, step: int | None = None, order: np.ndarray | None = None, devices: int = 1
) -> list[list[Block]]:
    """The blocks of every `step` examples (None: all), taken in `order`: each of `each` batches of `size`, of one bucket.

    Incomplete blocks are padded with zeros of weight 0. A bucket of few examples has fewer batches a block, a multiple of
    `devices`, and these are of fewer examples, so that little is padding: the same in every step.
    """
    order = np.arange(len(split)) if order is None else order
    step = step or len(split)
    by_step = [_by_bucket(order[start : start + step], split.bucket) for start in range(0, len(split), step)]
    longest = {length: max(len(rows.get(length, ())) for rows in by_step) for rows in by_step for length in rows}
    shapes = dict.fromkeys(longest, (each, size))
    for length, number in longest.items():
        if length is not None:
            own = even(-(-number // devices), size)
            shapes[length] = devices * even(-(-number // (own * devices)), each // devices), own
    return [
        [
            _block(split, rows[first : first + prod(shapes[length])], *shapes[length], length)
            for length, rows in buckets.items()
            for first in range(0, len(rows), prod(shapes[length]))
        ]
        for buckets in by_step
    ]


def _by_bucket(
    rows: Int[np.ndarray, " rows"], bucket: Int[np.ndarray, " n"] | None
) -> dict[int | None, Int[np.ndarray, " part"]]:
    """The rows of each padded length, ascending; all of them under None where there are no buckets."""
    if bucket is None:
        return {None: rows}
    return {int(length): rows[bucket[rows] == length] for length in np.unique(bucket[rows])}


def _block(split: Split, rows: Int[np.ndarray, " rows"], each: int, size: int, length: int | None) -> Block:
    """The block of these examples, `each` batches of `size`, cut to the padded `length` of their bucket."""
    missing = each * size - len(rows)

    def batched(leaf: np.ndarray | ImageFiles) -> np.ndarray | ImageFiles:
        if isinstance(leaf, ImageFiles):
            return leaf.at(np.concatenate([rows, np.full(missing, -1)]).reshape(each, size))
        part = np.asarray(leaf)[rows]
        padded = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
        return padded.reshape(each, size, *part.shape[1:])

    inputs, targets = jax.tree.map(batched, split.trimmed((split.inputs, split.targets), length))
    weights = np.concatenate([np.ones(len(rows), np.float32), np.zeros(missing, np.float32)])
    return Block(inputs, targets, weights.reshape(each, size))
