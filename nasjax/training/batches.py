"""The batches of an epoch: which examples each step reads, in an order that follows from the key alone."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from nasjax.tasks import Split
from nasjax.types import PRNGKey

MOST_STEPS = 64
"""The most steps that run in one program: between programs, training can be stored or stopped."""


class Bucket(NamedTuple):
    """Training examples of one padded length, on the device, and the batches of an epoch: `steps` of `batch` examples."""

    examples: PyTree[Array]
    number: int
    batch: int

    @property
    def steps(self) -> int:
        return self.number // self.batch


def buckets_of(split: Split, batch: int) -> list[Bucket]:
    """The examples by bucket; one bucket of all where sentences have no lengths."""
    tree = split.inputs, split.targets
    lengths = [None] if split.bucket is None else np.unique(split.bucket).tolist()
    buckets = []
    for length in lengths:
        rows = np.arange(len(split)) if length is None else np.flatnonzero(split.bucket == length)
        own = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(np.asarray(leaf)[rows]), split.trimmed(tree, length))
        buckets.append(Bucket(own, len(rows), min(batch, len(rows))))
    return buckets


Batches = tuple[Bucket, Int[Array, "steps batch"], PRNGKey]
"""Steps that run in one program: their bucket, and each one's rows and key."""


def batches_of(buckets: list[Bucket], key: PRNGKey) -> Iterator[Batches]:
    """An epoch's steps: of one bucket as many at once as divide them evenly, of several one by one in random order."""
    drawn = []
    for i, bucket in enumerate(buckets):
        order, draws = jax.random.split(key if len(buckets) == 1 else jax.random.fold_in(key, i))
        rows = jax.random.permutation(order, bucket.number)[: bucket.steps * bucket.batch]
        drawn.append((bucket, rows.reshape(bucket.steps, bucket.batch), jax.random.split(draws, bucket.steps)))
    # Equal numbers of steps: each number is compiled.
    together = max(n for n in range(1, MOST_STEPS + 1) if drawn[0][0].steps % n == 0) if len(buckets) == 1 else 1
    steps = [
        (bucket, rows[i : i + together], keys[i : i + together])
        for bucket, rows, keys in drawn
        for i in range(0, bucket.steps, together)
    ]
    if len(buckets) == 1:
        yield from steps
        return
    for i in np.asarray(jax.random.permutation(jax.random.fold_in(key, len(buckets)), len(steps))):
        yield steps[i]


def after(batches: Iterator[Batches], done: int) -> Iterator[Batches]:
    """Those that follow the first `done` steps."""
    for batch in batches:
        if done <= 0:
            yield batch
        done -= len(batch[1])
