"""Several processes joined by `jax.distributed`: the first one searches, the others do their part of what it measures.

Only the first decides, writes and keeps an archive; before each measurement it tells the others which, and what all of them
compute together is the same as everywhere (`nasjax.evaluation.mesh`). So a search, its folder and its being taken up again
are those of one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather

from nasjax.errors import ConfigError
from nasjax.evaluation.base import STATISTICS, STOP, Found, PopulationEvaluator
from nasjax.types import Population

SPLITS = ("train", "validation", "test")

HEAD = 6
"""What to do, the split, how many architectures, the first step and the last, whether statistics are kept."""


@contextmanager
def leading(evaluator: PopulationEvaluator) -> Iterator[None]:
    """While it lasts, what the first process measures with `evaluator` the others measure too: each must `follow`."""
    if jax.process_count() == 1:
        yield
        return
    if jax.process_index():
        raise ConfigError("the first process alone searches; the others run nasjax.follow")
    _agree(evaluator)
    if evaluator.shared:
        evaluator.announce = lambda *call: _tell(evaluator, *call)
    try:
        yield
    except (KeyboardInterrupt, jax.errors.JaxRuntimeError):
        raise  # In the middle of what all compute: nothing can be told any more, JAX ends the others with this process.
    except BaseException:
        _dismiss(evaluator)
        raise
    _dismiss(evaluator)


def _agree(evaluator: PopulationEvaluator) -> None:
    """Raises ConfigError, in every process, where they do not measure the same in the same way."""
    facts = repr((evaluator.config, dict(evaluator.context)))
    digests = process_allgather(np.frombuffer(sha256(facts.encode()).digest(), np.uint8))
    if (digests != digests[0]).any():
        raise ConfigError(
            "the processes differ in settings, data or weights: all must be started with the same command on the same files"
        )


def _dismiss(evaluator: PopulationEvaluator) -> None:
    def gone(*call: Any) -> None:
        raise ConfigError("the other processes are done and gone: extract from the run folder, in one process")

    _tell(evaluator, STOP)
    if evaluator.shared:
        evaluator.announce = gone


def follow(evaluator: PopulationEvaluator) -> None:
    """Measures what the first process measures, until it is done: to be called in every other one, with equal settings."""
    _agree(evaluator)
    kept: Found = {}
    while True:
        message = broadcast_one_to_all(_message(evaluator))
        what, split, number, start, stop, keeps = map(int, message[:HEAD])
        if what == STOP:
            return
        if SPLITS[split] != evaluator.split:
            evaluator = evaluator.on(SPLITS[split])
        archs = np.asarray(message[HEAD:]).reshape(evaluator.config.chunk, -1)[:number]
        if what == STATISTICS:
            evaluator.statistics(tuple(map(int, archs[0])))
            continue
        kept = {} if start == 0 else kept
        evaluator.sums(archs, start, None if stop < 0 else stop, kept if keeps else None)


def _message(evaluator: PopulationEvaluator) -> np.ndarray:
    """Of one length for all, since all must know it."""
    return np.zeros(HEAD + evaluator.config.chunk * evaluator.genes, np.int32)


def _tell(evaluator: PopulationEvaluator, what: int, split: str = "train", archs: Population | Any = (), *rest: Any) -> None:
    message = _message(evaluator)
    message[:3] = what, SPLITS.index(split), len(archs)
    message[3 : 3 + len(rest)] = rest
    message[HEAD : HEAD + np.size(archs)] = np.ravel(archs)
    broadcast_one_to_all(message)
