"""The pictures that are scored, in blocks that fit the memory."""

import numpy as np
from jaxtyping import Array

Block = tuple[Array | np.ndarray, Array | np.ndarray, Array | np.ndarray]


def even(pictures: int, most: int) -> int:
    """The size of batches of at most `most` pictures, as even as can be."""
    return -(-pictures // -(-pictures // most))


def batches(images: np.ndarray, size: int, room: float) -> int:
    """How many batches of `size` a block has, for blocks of at most `room` bytes: as even as can be, less to fill up."""
    needed = -(-len(images) // size)
    fit = int(max(1, room // (size * images[0].nbytes)))
    return even(needed, fit)


def blocks(
    images: np.ndarray, labels: np.ndarray, size: int, each: int, step: int | None = None, order: np.ndarray | None = None
) -> list[Block]:
    """Images, labels and which of them count, in blocks of `each` batches of `size`, taken in `order`.

    What is missing to a whole block is filled up with zeros that do not count. Every `step` pictures a new block begins.
    """
    step = step or len(images)
    found: list[Block] = []
    for begin in range(0, len(images), step):
        end = min(begin + step, len(images))
        for start in range(begin, end, each * size):
            span = slice(start, min(start + each * size, end))
            parts = (images[span], labels[span]) if order is None else (images[order[span]], labels[order[span]])
            missing = each * size - len(parts[1])
            counted = np.concatenate([np.ones(len(parts[1]), np.float32), np.zeros(missing, np.float32)])
            filled = (np.concatenate([p, np.zeros((missing, *p.shape[1:]), p.dtype)]) if missing else p for p in parts)
            pictures, classes, count = (p.reshape(each, size, *p.shape[1:]) for p in (*filled, counted))
            found.append((pictures, classes, count))
    return found
