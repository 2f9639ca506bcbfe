"""U-NSGA-III (Seada and Deb 2016): fronts, then niches round directions, and mates that compete within their niche."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nasjax.algorithms.decomposition import directions, levels, niches, normalised
from nasjax.algorithms.genetic import Genetic, GeneticState
from nasjax.pareto import non_dominated
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class UNSGA3(Genetic):
    """The best survive by front, then from the niche of `population` directions that has fewest, the nearest to its line."""

    def _keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        niche, distance = niches(normalised(values, ranks == 0), directions(values.shape[1], self.population))
        return jax.random.uniform(key, ranks.shape), levels(niche, distance, ranks), ranks

    def _parents(self, state: GeneticState, key: PRNGKey) -> tuple[Int[Array, "pop genes"], Int[Array, "pop genes"]]:
        """Of two members of one niche the better wins (its index is smaller: best first), else chance decides."""
        scaled = normalised(state.objectives, non_dominated(state.objectives))
        niche, _ = niches(scaled, directions(scaled.shape[1], self.population))
        first, second = jax.random.randint(key, (2, 2, self.population), 0, len(state.archs))
        one, other = state.archs[jnp.where(niche[first] == niche[second], jnp.minimum(first, second), first)]
        return one, other
