"""U-NSGA-III (Seada and Deb 2016): survival by front and niche around reference directions, with niche-based tournaments."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nasjax.algorithms.decomposition import directions, niches, normalised, positions_in_niche
from nasjax.algorithms.draws import whole_numbers
from nasjax.algorithms.genetic import Genetic, GeneticState
from nasjax.pareto import non_dominated
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class UNSGA3(Genetic):
    """U-NSGA-III: survival by front, then from the least crowded of `population` niches, nearest to its line first."""

    def _survival_keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        niche, distance = niches(normalised(values, ranks == 0), directions(values.shape[1], self.population))
        return jax.random.uniform(key, ranks.shape), positions_in_niche(niche, distance, ranks), ranks

    def _select_parents(self, state: GeneticState, key: PRNGKey) -> tuple[Int[Array, "pop genes"], Int[Array, "pop genes"]]:
        """Of two rows in one niche the better one wins (the smaller index, as rows are sorted); otherwise a random one."""
        scaled = normalised(state.objectives, non_dominated(state.objectives))
        niche, _ = niches(scaled, directions(scaled.shape[1], self.population))
        first, second = whole_numbers(key, (2, 2, self.population), len(state.archs))
        one, other = state.archs[jnp.where(niche[first] == niche[second], jnp.minimum(first, second), first)]
        return one, other
