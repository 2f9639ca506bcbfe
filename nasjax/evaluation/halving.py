"""Successive halving: all networks on few pictures, the better half on twice as many, until these are all pictures.

Source: Jamieson and Talwalkar 2016 (arXiv:1502.07943), section 3, with ranks of Deb et al. 2002 instead of one loss. Those
that stop early keep the values of their pictures, whose standard errors are larger. So a network's values depend on those
that it is measured with, and the key of a measurement names the setting.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nasjax.errors import ConfigError
from nasjax.evaluation.base import Found, PopulationEvaluator
from nasjax.pareto import crowding_distance, non_dominated_sort
from nasjax.types import Population

Values = Callable[[Population, Mapping[str, Float[np.ndarray, " pop"]]], Float[np.ndarray, "pop obj"]]
"""(architectures, metrics so far) -> what they are compared by, minimised."""


class Halving:
    """Measures as a `PopulationEvaluator`, in steps of its `config.first_pictures`; at most `config.chunk` at once.

    `scored` counts pictures x networks that were scored, `asked` those that all networks on all pictures would be. No
    network is scored on a picture twice, nor re-calibrated twice (by `prefix`: where its cache holds the statistics).
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
        if len(archs) > self.chunk:
            raise ConfigError(
                f"at most {self.chunk} architectures at once, not {len(archs)}; nasjax.searches.problem.measure takes more"
            )
        whole = self._evaluator
        sums, squares = (np.zeros((len(archs), len(self.metrics))) for _ in range(2))
        number = np.zeros((len(archs), 1), np.int64)
        rows = np.arange(len(archs))
        kept: Found = {}
        start, stop = 0, 1
        while True:
            more, squared = whole.sums(archs[rows], start, stop, kept)
            sums[rows] += more
            squares[rows] += squared
            number[rows] = whole.pictures(stop)
            if stop >= whole.steps:
                break
            values = self._values(archs[rows], whole.described(sums[rows], squares[rows], number[rows]))
            rows = rows[better(values, -(-len(rows) // 2), self.chunk)]
            start, stop = stop, min(2 * stop, whole.steps)
        self.scored += int(number.sum())
        self.asked += len(archs) * whole.pictures(whole.steps)
        return whole.described(sums, squares, number)


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
