"""NSGA-II (Deb et al. 2002) with operators for categorical genes, fully on the device.

With one objective it is a plain (mu + lambda) genetic algorithm.
"""

from dataclasses import dataclass

from jaxtyping import Array, Float, Int

from nasjax.algorithms.genetic import Genetic
from nasjax.pareto import crowding_distance
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class NSGA2(Genetic):
    """NSGA-II: survival by non-domination rank, then by crowding distance (larger is better)."""

    def _survival_keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        return -crowding_distance(values, ranks), ranks
