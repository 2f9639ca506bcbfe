"""Several processes joined by `jax.distributed`: the first one searches, the others share the work of its measurements.

Only the first process decides and writes an archive. It broadcasts each measurement to the others before all of them compute
it together (`nasjax.evaluation.mesh`). A search, its run folder and its resumption are thus those of one process.
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
"""Requests of the first process to the others."""

HEAD = 6
"""Length of a message's header: request, split, number of architectures, first and last step, whether statistics are
stored."""


class LeadingEvaluator(PopulationEvaluator):
    """The first process's evaluator: it broadcasts every measurement to the others, which `follow`."""

    _following: list[bool]

    @classmethod
    def of(cls, evaluator: PopulationEvaluator) -> "LeadingEvaluator":
        """A leading copy of an evaluator; its copies for other splits (`on`) lead the same processes."""
        leader = cls.__new__(cls)
        leader.__dict__.update(copy(evaluator).__dict__)
        leader._following = [False]
        return leader

    def statistics(self, arch: Choice) -> tuple[Statistics, ...]:
        self._request(STATISTICS, np.asarray(arch)[None])
        return super().statistics(arch)

    def totals(
        self, archs: Population, start: int = 0, stop: int | None = None, known: KnownStatistics | None = None
    ) -> Totals:
        self._request(TOTALS, archs, start, -1 if stop is None else stop, int(known is not None))
        return super().totals(archs, start, stop, known)

    def _request(self, request: int, archs: Population, *rest: int) -> None:
        if not self.shared:
            return
        if not self._following[0]:
            raise ConfigError("the other processes have ended: extract from the run folder, in one process")
        _broadcast(self, request, self.split, archs, *rest)


@contextmanager
def leading(evaluator: PopulationEvaluator) -> Iterator[None]:
    """Within this context all processes measure what the first one measures with its `LeadingEvaluator`; the others must
    `follow`. Does nothing for other evaluators."""
    if not isinstance(evaluator, LeadingEvaluator):
        yield
        return
    if jax.process_index():
        raise ConfigError("only the first process searches; the others call nasjax.follow")
    _check_equal(evaluator)
    evaluator._following[0] = True
    try:
        yield
    except (KeyboardInterrupt, jax.errors.JaxRuntimeError):
        raise  # In the middle of a common computation: JAX ends the other processes with this one.
    except BaseException:
        _stop_followers(evaluator)
        raise
    _stop_followers(evaluator)


def _check_equal(evaluator: PopulationEvaluator) -> None:
    """Raises ConfigError, in every process, unless all of them have equal settings, data and weights."""
    facts = repr((evaluator.config, dict(evaluator.context)))
    digests = process_allgather(np.frombuffer(sha256(facts.encode()).digest(), np.uint8))
    if (digests != digests[0]).any():
        raise ConfigError(
            "the processes differ in settings, data or weights: all must be started with the same command on the same files"
        )


def _stop_followers(evaluator: LeadingEvaluator) -> None:
    """Ends `follow` in the other processes."""
    _broadcast(evaluator, STOP)
    evaluator._following[0] = False


def follow(evaluator: PopulationEvaluator) -> None:
    """Measures what the first process measures, until that has finished; for every other process, with equal settings."""
    _check_equal(evaluator)
    known: KnownStatistics = {}
    while True:
        message = broadcast_one_to_all(_empty_message(evaluator))
        request, split, number, start, stop, stores = map(int, message[:HEAD])
        if request == STOP:
            return
        if SPLITS[split] != evaluator.split:
            evaluator = evaluator.on(SPLITS[split])
        archs = np.asarray(message[HEAD:]).reshape(evaluator.config.chunk, -1)[:number]
        if request == STATISTICS:
            evaluator.statistics(tuple(map(int, archs[0])))
            continue
        known = {} if start == 0 else known
        evaluator.totals(archs, start, None if stop < 0 else stop, known if stores else None)


def _empty_message(evaluator: PopulationEvaluator) -> np.ndarray:
    """A message of zeros; all messages have the same length, which the receivers must know."""
    return np.zeros(HEAD + evaluator.config.chunk * evaluator.genes, np.int32)


def _broadcast(
    evaluator: PopulationEvaluator, request: int, split: str = "train", archs: Population | Any = (), *rest: int
) -> None:
    """Sends a request and the architectures that it is about to all other processes."""
    message = _empty_message(evaluator)
    message[:3] = request, SPLITS.index(split), len(archs)
    message[3 : 3 + len(rest)] = rest
    message[HEAD : HEAD + np.size(archs)] = np.ravel(archs)
    broadcast_one_to_all(message)
