"""The pictures that are scored, in blocks that fit the memory."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Block = tuple[Array | np.ndarray, Array | np.ndarray, Array | np.ndarray]


def batches(images: np.ndarray, size: int, room: float) -> int:
    """How many batches of `size` a block has, for blocks of at most `room` bytes: as even as can be, less to fill up."""
    needed = -(-len(images) // size)
    fit = int(max(1, room // (size * images[0].nbytes)))
    return -(-needed // -(-needed // fit))


def blocks(images: np.ndarray, labels: np.ndarray, size: int, each: int) -> list[Block]:
    """Images, labels and which of them count, in blocks of `each` batches of `size`.

    What is missing to a whole block is filled up with zeros that do not count. Where one block holds all, it stays on the
    device; more than one are brought there in turn.
    """
    parted: list[Block] = []
    for start in range(0, len(images), each * size):
        parts = images[start : start + each * size], labels[start : start + each * size]
        missing = each * size - len(parts[1])
        counted = np.concatenate([np.ones(len(parts[1]), np.float32), np.zeros(missing, np.float32)])
        filled = (np.concatenate([p, np.zeros((missing, *p.shape[1:]), p.dtype)]) if missing else p for p in parts)
        pictures, classes, count = (p.reshape(each, size, *p.shape[1:]) for p in (*filled, counted))
        parted.append((pictures, classes, count))
    return [tuple(map(jnp.asarray, parted[0]))] if len(parted) == 1 else parted  # type: ignore[list-item]
