"""Genetic algorithm for one objective; for several, it optimises many weighted Chebyshev objectives at once."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nasjax.algorithms.decomposition import best_positions, chebyshev, directions, normalised
from nasjax.algorithms.genetic import Genetic
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class GA(Genetic):
    """Survival by the objective; with several, by the best position along any of `population` Chebyshev directions."""

    def _survival_keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        scores = chebyshev(normalised(values, ranks == 0), directions(values.shape[1], self.population))
        # Invalid rows must not take a position from valid ones.
        scores = jnp.where((ranks < len(ranks))[None], scores, jnp.nan)
        return jax.random.uniform(key, ranks.shape), best_positions(scores)
