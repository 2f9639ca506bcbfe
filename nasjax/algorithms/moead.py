"""MOEA/D (Zhang and Li 2007): decomposes the front into single-objective problems that share solutions with neighbours.

A child may replace the incumbent of any problem (global replacement, Wang et al. 2016), so all children are asked for at
once. Survivors are distinct: where one row is the best of several problems, the second best is kept too.
"""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from nasjax.algorithms.decomposition import chebyshev, directions, normalised
from nasjax.algorithms.draws import whole_numbers
from nasjax.algorithms.ga import GA
from nasjax.algorithms.genetic import GeneticState
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class MOEAD(GA):
    """MOEA/D with `population` augmented Chebyshev problems; parents solve two of the `neighbours` nearest problems."""

    neighbours: int = 20

    def __post_init__(self):
        super().__post_init__()
        if self.neighbours < 2:
            raise ConfigError(f"algorithm.neighbours must be at least 2, not {self.neighbours}")

    def _select_parents(self, state: GeneticState, key: PRNGKey) -> tuple[Int[Array, "pop genes"], Int[Array, "pop genes"]]:
        number, dimensions = self.population, state.objectives.shape[1]
        scaled = normalised(state.objectives, non_dominated(state.objectives))
        scores = chebyshev(scaled, directions(dimensions, number))
        best = jnp.where(jnp.isnan(scores), jnp.inf, scores).argmin(axis=1)
        near = jnp.asarray(_nearest_directions(dimensions, number, min(self.neighbours, number)))
        which, far = jax.random.split(key)
        pair = whole_numbers(which, (2, number), near.shape[1])
        # One pair in ten comes from all problems, to spread solutions beyond neighbourhoods (Li and Zhang 2009).
        anyone = whole_numbers(far, (2, number), 10 * number)
        problem = jnp.where(anyone[:1] < number, anyone[::-1] % number, near[jnp.arange(number)[None], pair])
        one, other = state.archs[best[problem]]
        return one, other


@lru_cache(maxsize=64)
def _nearest_directions(objectives: int, number: int, neighbours: int) -> Int[np.ndarray, "number neighbours"]:
    """For each direction the indices of the `neighbours` nearest ones, itself included."""
    towards = directions(objectives, number)
    apart = np.linalg.norm(towards[:, None] - towards[None], axis=2)
    return np.argsort(apart, axis=1, kind="stable")[:, :neighbours].astype(np.int32)
