"""Successive halving: all networks on few examples, the better half on twice as many, until these are all examples.

Source: Jamieson and Talwalkar 2016 (arXiv:1502.07943), section 3, with ranks of Deb et al. 2002 instead of one loss.
Networks that stop early keep the values of their examples, whose standard errors are larger. So a network's values depend on
those that it is measured with, and the key of a measurement names the setting.
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

Values = Callable[[Population, Mapping[str, Float[np.ndarray, " pop"]]], Float[np.ndarray, "pop obj"]]
"""(architectures, metrics so far) -> what they are compared by, minimised."""


class Halving:
    """Measures as a `PopulationEvaluator`, in steps of its `config.first_examples`; at most `config.chunk` at once.

    `scored` counts examples x networks that were scored, `asked` those that all networks on all examples would be. No
    network is scored on an example twice, nor re-calibrated twice (by `prefix`: where its cache holds the statistics).
    """

    def __init__(self, evaluator: PopulationEvaluator, values: Values):
        self._evaluator, self._values = evaluator, values
        self.metrics = evaluator.metrics
        self.context: Mapping[str, Any] = evaluator.context
        self.chunk = evaluator.config.chunk
        self.scored = self.asked = 0

    def __call__(self, archs: Population) -> dict[str, Float[np.ndarray, " pop"]]:
        """Metrics, and `<metric>_se`, of at most `chunk` canonical architectures."""
        archs = np.asarray(archs, np.int32)
        check_chunk(archs, self.chunk)
        whole = self._evaluator
        rows = np.arange(len(archs))
        known: KnownStatistics = {}
        totals = whole.totals(archs, 0, 1, known)
        start = 1
        number = np.full(len(archs), whole.examples(1), np.int64)
        while start < whole.steps:
            values = self._values(archs[rows], whole.described(Totals(*(part[rows] for part in totals))))
            rows = rows[better(values, -(-len(rows) // 2), self.chunk)]
            stop = min(2 * start, whole.steps)
            more = both(Totals(*(part[rows] for part in totals)), whole.totals(archs[rows], start, stop, known))
            for part, new in zip(totals, more, strict=True):
                part[rows] = new
            number[rows] = whole.examples(stop)
            start = stop
        self.scored += int(number.sum())
        self.asked += len(archs) * whole.examples(whole.steps)
        return whole.described(totals)


def better(values: Float[np.ndarray, "pop obj"], number: int, most: int) -> Int[np.ndarray, " number"]:
    """The rows of the first fronts, the least crowded of the last one that has a place; minimised, in their order.

    Filled up to `most` rows, so that nothing is compiled again for fewer.
    """
    filled = np.full((most, values.shape[1]), np.nan, np.float32)
    filled[: len(values)] = values
    ranks = non_dominated_sort(filled)
    crowding = np.asarray(crowding_distance(filled, ranks))
    order = np.lexsort((-crowding[: len(values)], np.asarray(ranks)[: len(values)]))
    return np.sort(order[:number])
