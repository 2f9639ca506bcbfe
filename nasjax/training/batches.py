"""The batches of an epoch: which examples each step reads, in an order that follows from the key alone.

Examples lie on the device, where steps gather theirs; but images in files are decoded by grain, ahead of their steps. The
order is the same, and so are the weights that are trained.
"""

from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from nasjax.errors import ConfigError
from nasjax.evaluation.blocks import example_bytes
from nasjax.tasks import Split
from nasjax.tasks.image_files import ImageFiles
from nasjax.types import PRNGKey

MOST_STEPS = 64
"""The most steps that run in one program: between programs, training can be stored or stopped."""

MOST_BYTES = 1e8
"""The most bytes of examples that the steps of one program read, unless a single step reads more."""


class Bucket(NamedTuple):
    """Training examples of one padded length, and the batches of an epoch: `steps` of `batch` examples.

    They are on the device; where some are in files, all are on the host.
    """

    examples: PyTree[Array | np.ndarray | ImageFiles]
    number: int
    batch: int

    @property
    def steps(self) -> int:
        return self.number // self.batch


def buckets_of(split: Split, batch: int, parts: int = 1) -> list[Bucket]:
    """The examples by bucket; one bucket of all where sentences have no lengths.

    Batches are of `batch` examples, or as many as a smaller bucket has; `parts` divides them. Raises ConfigError for a
    bucket of fewer examples than parts.
    """
    tree = split.inputs, split.targets
    if _in_files(tree):
        return [Bucket(tree, len(split), min(batch, len(split)))]
    lengths = [None] if split.bucket is None else np.unique(split.bucket).tolist()
    buckets = []
    for length in lengths:
        rows = np.arange(len(split)) if length is None else np.flatnonzero(split.bucket == length)
        own = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(np.asarray(leaf)[rows]), split.trimmed(tree, length))
        if len(rows) < parts:
            raise ConfigError(f"trainer.accumulate={parts} parts: only {len(rows)} training examples have length {length}")
        buckets.append(Bucket(own, len(rows), min(batch, len(rows)) // parts * parts))
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
    together = _steps_at_once(buckets[0]) if len(buckets) == 1 else 1
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


def _steps_at_once(bucket: Bucket) -> int:
    """The number of steps in each program: as many as fit and divide an epoch evenly, since each number is compiled.

    It is the same for examples in files, so that they train the same weights.
    """
    fit = int(MOST_BYTES // (bucket.batch * example_bytes(bucket.examples)))
    return max(n for n in range(1, max(1, min(MOST_STEPS, fit)) + 1) if bucket.steps % n == 0)


def after(batches: Iterator[Batches], done: int) -> Iterator[Batches]:
    """Those that follow the first `done` steps. Examples in files are decoded: the bucket then has those of its steps."""
    rest = _from(batches, done)
    first = next(rest, None)
    if first is None:
        return
    rest = chain([first], rest)
    yield from _decoded(list(rest)) if _in_files(first[0].examples) else rest


def _from(batches: Iterator[Batches], done: int) -> Iterator[Batches]:
    for batch in batches:
        if done <= 0:
            yield batch
        done -= len(batch[1])


def _in_files(tree: PyTree) -> bool:
    return any(isinstance(leaf, ImageFiles) for leaf in jax.tree.leaves(tree))


def _decoded(batches: list[Batches]) -> Iterator[Batches]:
    """Batches of equally many steps, of one bucket; while a program runs, the examples of the next one are decoded."""
    import grain  # Takes seconds.

    def decode(rows: Int[np.ndarray, "steps batch"]) -> PyTree[np.ndarray]:
        return jax.tree.map(lambda leaf: leaf[rows.ravel()], bucket.examples)

    bucket, rows, _ = batches[0]
    ordered = grain.MapDataset.source([np.asarray(rows) for _, rows, _ in batches])
    # One program's at a time: `ImageFiles` has a thread for each processor.
    read = iter(ordered.map(decode).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)))
    positions = jnp.arange(rows.size).reshape(rows.shape)
    try:
        for _, _, keys in batches:
            yield bucket._replace(examples=jax.tree.map(jnp.asarray, next(read))), positions, keys
    finally:
        read.close()
