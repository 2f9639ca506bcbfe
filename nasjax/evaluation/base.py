"""What all strategies of evaluation share: their protocol and their settings."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float, PyTree

from nasjax.evaluation.blocks import Block
from nasjax.evaluation.totals import Totals
from nasjax.supernets.stage import Choice, Statistics
from nasjax.supernets.supernet import HostOptions
from nasjax.types import Population

LOG = logging.getLogger(__name__)

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"
"""The first word of XLA's error where a device is out of memory."""

ALL = slice(None)

KnownStatistics = dict[Any, Any]
"""Batch-norm statistics found before: (host options, architecture) -> statistics, in whatever form a strategy keeps them."""

Calibration: TypeAlias = PyTree | None
"""Training inputs that re-calibrate batch norms; None for a network without."""


class Evaluator(Protocol):
    """Measures at most `chunk` architectures at once; `context` names all that the values depend on."""

    chunk: int
    metrics: tuple[str, ...]
    context: Mapping[str, Any]

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]: ...


def measure(evaluator: Evaluator, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
    """Every metric of a population of any size, chunk by chunk."""
    parts = [evaluator(archs[i : i + evaluator.chunk]) for i in range(0, len(archs), evaluator.chunk)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Strategy(Protocol):
    """A way of running sub-networks: which computations are shared, and what is compiled. All give the same values."""

    def statistics(self, arch: Choice, calibration: Calibration, host: HostOptions, together: int) -> tuple[Statistics, ...]:
        """The batch-norm statistics of one sub-network, full width, stage by stage."""

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

        At most `together` rows, of equal host options. Batch-norm statistics may be put into `known`, and taken from there.
        """

    def forget(self) -> None:
        """Clears cached activations and statistics."""

    def release(self) -> None:
        """Clears all caches, compiled programs too."""
