"""Several processes joined by `jax.distributed`: the first one searches, the others do their part of what it measures.

Only the first decides, writes and keeps an archive; before each measurement it tells the others which, and what all of them
compute together is the same as everywhere (`nasjax.evaluation.mesh`). So a search, its folder and its being resumed are
those of one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from hashlib import sha256
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all, process_allgather

from nasjax.errors import ConfigError
from nasjax.evaluation.base import KnownStatistics
from nasjax.evaluation.population import PopulationEvaluator
from nasjax.evaluation.totals import Totals
from nasjax.supernets.stage import Choice, Statistics
from nasjax.tasks.base import SPLITS
from nasjax.types import Population

STOP, TOTALS, STATISTICS = range(3)
"""What the first process asks the others for."""

HEAD = 6
"""Numbers in front of a message: what, the split, how many architectures, the first step and the last, whether statistics
are kept."""


class LeadingEvaluator(PopulationEvaluator):
    """The first process's evaluator: it tells the others what it is about to compute, while they `follow`."""

    _following: list[bool]

    @classmethod
    def of(cls, evaluator: PopulationEvaluator) -> "LeadingEvaluator":
        """The same evaluator, leading; on every split (`on`) the same others follow."""
        leader = cls.__new__(cls)
        leader.__dict__.update(copy(evaluator).__dict__)
        leader._following = [False]
        return leader

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        self._tell(STATISTICS, np.asarray(arch)[None])
        return super().statistics(arch)

    def totals(
        self, archs: Population, start: int = 0, stop: int | None = None, known: KnownStatistics | None = None
    ) -> Totals:
        self._tell(TOTALS, archs, start, -1 if stop is None else stop, int(known is not None))
        return super().totals(archs, start, stop, known)

    def _tell(self, what: int, archs: Population, *rest: int) -> None:
        if not self.shared:
            return
        if not self._following[0]:
            raise ConfigError("the other processes are done and gone: extract from the run folder, in one process")
        _broadcast(self, what, self.split, archs, *rest)


@contextmanager
def leading(evaluator: PopulationEvaluator) -> Iterator[None]:
    """While it lasts, what the first process measures with its `LeadingEvaluator` the others measure too: each must
    `follow`."""
    if not isinstance(evaluator, LeadingEvaluator):
        yield
        return
    if jax.process_index():
        raise ConfigError("the first process alone searches; the others run nasjax.follow")
    _agree(evaluator)
    evaluator._following[0] = True
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


def _dismiss(evaluator: LeadingEvaluator) -> None:
    _broadcast(evaluator, STOP)
    evaluator._following[0] = False


def follow(evaluator: PopulationEvaluator) -> None:
    """Measures what the first process measures, until it is done: to be called in every other one, with equal settings."""
    _agree(evaluator)
    known: KnownStatistics = {}
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
        known = {} if start == 0 else known
        evaluator.totals(archs, start, None if stop < 0 else stop, known if keeps else None)


def _message(evaluator: PopulationEvaluator) -> np.ndarray:
    """An empty message, of one length for all, since all must know it."""
    return np.zeros(HEAD + evaluator.config.chunk * evaluator.genes, np.int32)


def _broadcast(
    evaluator: PopulationEvaluator, what: int, split: str = "train", archs: Population | Any = (), *rest: int
) -> None:
    message = _message(evaluator)
    message[:3] = what, SPLITS.index(split), len(archs)
    message[3 : 3 + len(rest)] = rest
    message[HEAD : HEAD + np.size(archs)] = np.ravel(archs)
    broadcast_one_to_all(message)
