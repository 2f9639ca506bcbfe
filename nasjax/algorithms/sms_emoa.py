"""SMS-EMOA (Beume, Naujoks and Emmerich 2007): removes the row that contributes least to the hypervolume, one at a time."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.decomposition import normalised
from nasjax.algorithms.genetic import Genetic, GeneticState
from nasjax.errors import ConfigError
from nasjax.pareto import crowding_distance
from nasjax.sorting import argsort
from nasjax.space import SearchSpace
from nasjax.types import Population, PRNGKey

SCALED_REFERENCE = 1.1
"""Reference point in each objective, scaled so that the front spans 0 to 1."""


@dataclass(frozen=True)
class SMSEMOA(Genetic):
    """SMS-EMOA: survival by front, and within the last front by hypervolume contribution; up to three objectives."""

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> GeneticState:
        """As `Genetic.init`; raises ConfigError for more than three objectives."""
        if objectives > 3:
            raise ConfigError(
                f"algorithm sms_emoa takes up to three objectives, not {objectives}; use nsga2, unsga3 or moead"
            )
        return super().init(key, space, start, objectives)

    def _survival_keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        last = jnp.sort(ranks)[min(self.population, len(ranks)) - 1]
        front = (ranks == last) & (last < len(ranks))
        scaled = jnp.where(front[:, None], normalised(values, front), SCALED_REFERENCE)
        surplus = (ranks <= last).sum() - self.population

        def leave(_, left: Bool[Array, " all"]) -> Bool[Array, " all"]:
            least = jnp.where(left, hypervolume_contributions(scaled, left), jnp.inf).argmin()
            return left & (jnp.arange(len(left)) != least)

        left = lax.fori_loop(0, jnp.where(last < len(ranks), surplus, 0), leave, front)
        return -crowding_distance(values, ranks), front & ~left, ranks


def hypervolume_contributions(points: Float[Array, "pop obj"], mask: Bool[Array, " pop"]) -> Float[Array, " pop"]:
    """The hypervolume that each row of the mask alone dominates, up to `SCALED_REFERENCE`; for up to three objectives.

    The plane of the first two objectives is divided into a grid through all points. In each cell the lowest point owns the
    volume between itself and the second lowest, so pop x pop cells give all contributions at once.
    """
    number, dimensions = points.shape
    points = jnp.where(mask[:, None], jnp.minimum(points, SCALED_REFERENCE), SCALED_REFERENCE)
    points = jnp.pad(points, ((0, 0), (0, 3 - dimensions)), constant_values=SCALED_REFERENCE - 1)
    across, along = argsort(points[:, 0]), argsort(points[:, 1])
    widths = (
        jnp.diff(points[across, 0], append=SCALED_REFERENCE)[:, None]
        * jnp.diff(points[along, 1], append=SCALED_REFERENCE)[None]
    )
    row, column = argsort(across), argsort(along)
    empty = jnp.full((number, number), SCALED_REFERENCE)
    owner = jnp.zeros((number, number), jnp.int32).at[row, column].set(jnp.arange(number, dtype=jnp.int32))
    lowest = empty.at[row, column].set(points[:, 2])

    def lower(one, other):
        first, second, which = one
        another, next_one, whose = other
        rest = jnp.minimum(jnp.maximum(first, another), jnp.minimum(second, next_one))
        return jnp.minimum(first, another), rest, jnp.where(first <= another, which, whose)

    cells = lowest, empty, owner
    for axis in (0, 1):
        cells = lax.associative_scan(lower, cells, axis=axis)
    lowest, second, owner = cells
    volume = (second - lowest) * widths
    return jax.ops.segment_sum(volume.ravel(), owner.ravel(), number)
