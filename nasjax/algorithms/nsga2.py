"""NSGA-II (Deb et al. 2002) with operators for categorical genes, on the device from the first generation to the last.

A plain (mu + lambda) genetic algorithm for one objective.
"""

from dataclasses import dataclass

from jaxtyping import Array, Float, Int

from nasjax.algorithms.genetic import Genetic
from nasjax.pareto import crowding_distance
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class NSGA2(Genetic):
    """The best survive by front, then by crowding distance (the emptier first)."""

    def _keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        return -crowding_distance(values, ranks), ranks
