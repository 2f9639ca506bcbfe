"""Successive halving: all networks are scored on few examples, the better half on twice as many, up to all examples.

Source: Jamieson and Talwalkar 2016 (arXiv:1502.07943), section 3, with ranks of Deb et al. 2002 instead of one loss.
Networks that stop early have metrics of fewer examples, with larger standard errors. A network's values thus depend on the
other networks of its chunk; the setting is part of a measurement's key.

A task may have a cheaper metric, as translation has its loss (`Task.cheaper`): the first half is chosen by that on all
examples, instead of by the first few.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nasjax.evaluation.base import KnownStatistics
from nasjax.evaluation.population import PopulationEvaluator, check_chunk
from nasjax.evaluation.totals import Totals, both
from nasjax.pareto import crowding_distance, non_dominated_sort
from nasjax.types import Population

ComparedValues = Callable[[Population, Mapping[str, Float[np.ndarray, " pop"]]], Float[np.ndarray, "pop obj"]]
"""(architectures, metrics so far) -> objectives that they are compared by, minimised."""

FirstValues = Callable[[Population], Float[np.ndarray, "pop obj"]]
"""architectures -> objectives, minimised, that the first half is chosen by."""


class Halving:
    """Measures like a `PopulationEvaluator`, in steps of its `config.first_examples`; at most `config.chunk` at once.

    `scored` counts examples x networks that were scored, `asked` what scoring all networks on all examples would take. No
    network is scored on an example twice, nor re-calibrated twice (by `prefix`: unless its cache drops the statistics).
    """

    def __init__(self, evaluator: PopulationEvaluator, values: ComparedValues, first: FirstValues | None = None):
        self._evaluator, self._values, self._first = evaluator, values, first
        self.metrics = evaluator.metrics
        self.context: Mapping[str, Any] = evaluator.context
        self.chunk = evaluator.config.chunk
        self.scored = self.asked = 0

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures."""
        archs = np.asarray(archs, np.int32)
        check_chunk(archs, self.chunk)
        evaluator = self._evaluator
        rows = np.arange(len(archs))
        known: KnownStatistics = {}
        totals = evaluator.totals(archs, 0, 1, known)
        start = 1
        number = np.full(len(archs), evaluator.examples(1), np.int64)
        while start < evaluator.steps:
            if start == 1 and self._first is not None:
                values = self._first(archs)
            else:
                values = self._values(archs[rows], evaluator.described(Totals(*(part[rows] for part in totals))))
            rows = rows[better(values, -(-len(rows) // 2), self.chunk)]
            stop = min(2 * start, evaluator.steps)
            more = both(Totals(*(part[rows] for part in totals)), evaluator.totals(archs[rows], start, stop, known))
            for part, new in zip(totals, more, strict=True):
                part[rows] = new
            number[rows] = evaluator.examples(stop)
            start = stop
        self.scored += int(number.sum())
        self.asked += len(archs) * evaluator.examples(evaluator.steps)
        return evaluator.described(totals)


def better(values: Float[np.ndarray, "pop obj"], number: int, padded: int) -> Int[np.ndarray, " number"]:
    """The `number` best rows, sorted: by rank, then the least crowded first; values are minimised.

    Values are padded to `padded` rows, so that nothing is compiled again for fewer.
    """
    filled = np.full((padded, values.shape[1]), np.nan, np.float32)
    filled[: len(values)] = values
    ranks = non_dominated_sort(filled)
    crowding = np.asarray(crowding_distance(filled, ranks))
    order = np.lexsort((-crowding[: len(values)], np.asarray(ranks)[: len(values)]))
    return np.sort(order[:number])
