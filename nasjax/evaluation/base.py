"""Protocols of evaluators and of evaluation strategies."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import PyTree, Shaped

from nasjax.evaluation.blocks import Block
from nasjax.evaluation.totals import Totals
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.types import Population

LOG = logging.getLogger(__name__)

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""The first word of XLA's error message if a device is out of memory."""

ALL = slice(None)

KnownStatistics = dict[Any, Any]
"""Batch-norm statistics by (host options, architecture), in a form that depends on the strategy."""

Calibration: TypeAlias = PyTree | None
"""Training inputs that batch norms are re-calibrated on, (batches, batch, …); None for a network without batch norms."""


class Evaluator(Protocol):
    """Measures at most `chunk` architectures at once; `context` holds everything that the values depend on.

    A metric that could not be measured is NaN. Beside the metrics, `nasjax.errors.FAILURE` may say why, as text.
    """

    chunk: int
    metrics: tuple[str, ...]
    context: Mapping[str, Any]

    def __call__(self, archs: Population) -> dict[str, Shaped[np.ndarray, " pop"]]: ...


def measure(evaluator: Evaluator, archs: Population) -> dict[str, Shaped[np.ndarray, " pop"]]:
    """Every metric of a population of any size, chunk by chunk."""
    return joined(list(by_chunk(evaluator, archs)))


def by_chunk(evaluator: Evaluator, archs: Population) -> Iterator[dict[str, Shaped[np.ndarray, " chunk"]]]:
    """The metrics of each chunk of a population, once it is measured."""
    for start in range(0, len(archs), evaluator.chunk):
        yield evaluator(archs[start : start + evaluator.chunk])


def joined(chunks: Sequence[Mapping[str, Shaped[np.ndarray, " chunk"]]]) -> dict[str, Shaped[np.ndarray, " pop"]]:
    """The metrics of all chunks as those of one population."""
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


class Strategy(Protocol):
    """How sub-networks are run: which computations are shared, and what is compiled. All strategies give the same values."""

    def statistics(self, arch: Choice, calibration: Calibration, host: HostOptions, together: int) -> tuple[Statistics, ...]:
        """The re-calibrated batch-norm statistics of one sub-network, full width, stage by stage."""

    def totals(
        self,
        archs: Population,
        calibration: Calibration,
        blocks: Sequence[Block],
        host: HostOptions,
        together: int,
        part: slice = ALL,
        known: KnownStatistics | None = None,
    ) -> Totals:
        """The task's statistics summed over the examples of `part` of the blocks, by re-calibrated sub-networks.

        `archs` has at most `together` rows, of equal host options; so many are run at once. Batch-norm statistics may be
        stored in `known`, and are then read from there.
        """

    def forget(self) -> None:
        """Clears cached activations and statistics."""

    def release(self) -> None:
        """Clears all caches, compiled programs too."""
