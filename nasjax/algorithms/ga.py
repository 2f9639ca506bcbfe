"""A genetic algorithm for one objective; for several, one that seeks the best along each of many directions."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nasjax.algorithms.decomposition import chebyshev, directions, normalised, places
from nasjax.algorithms.genetic import Genetic
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class GA(Genetic):
    """The best survive; for several objectives the best by each of `population` Chebyshev weights, then the next."""

    def _keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        scores = chebyshev(normalised(values, ranks == 0), directions(values.shape[1], self.population))
        # A row that does not count takes no other row's place.
        scores = jnp.where((ranks < len(ranks))[None], scores, jnp.nan)
        return jax.random.uniform(key, ranks.shape), places(scores)
