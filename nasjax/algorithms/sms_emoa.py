"""SMS-EMOA (Beume, Naujoks and Emmerich 2007): what adds least to the hypervolume leaves, one row after another."""

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
from nasjax.space import SearchSpace
from nasjax.types import Population, PRNGKey

REFERENCE = 1.1
"""The reference point, where the front's own best and worst are 0 and 1."""


@dataclass(frozen=True)
class SMSEMOA(Genetic):
    """The best survive by front, and of the last front those that add most to the hypervolume; up to three objectives."""

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> GeneticState:
        """As every genetic algorithm's; ValueError for more than three objectives."""
        if objectives > 3:
            raise ConfigError(
                f"algorithm sms_emoa takes up to three objectives, not {objectives}; take nsga2, unsga3 or moead"
            )
        return super().init(key, space, start, objectives)

    def _keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        last = jnp.sort(ranks)[min(self.population, len(ranks)) - 1]
        front = (ranks == last) & (last < len(ranks))
        scaled = jnp.where(front[:, None], normalised(values, front), REFERENCE)
        surplus = (ranks <= last).sum() - self.population

        def leave(_, left: Bool[Array, " all"]) -> Bool[Array, " all"]:
            least = jnp.where(left, contributions(scaled, left), jnp.inf).argmin()
            return left & (jnp.arange(len(left)) != least)

        left = lax.fori_loop(0, jnp.where(last < len(ranks), surplus, 0), leave, front)
        return -crowding_distance(values, ranks), front & ~left, ranks


def contributions(points: Float[Array, "pop obj"], mask: Bool[Array, " pop"]) -> Float[Array, " pop"]:
    """The volume up to `REFERENCE` that each row alone dominates; up to three objectives, rows outside the mask have none.

    The plane of the first two objectives is a grid through all points; over each cell the lowest point owns what lies
    between it and the second lowest: pop x pop cells give all contributions at once.
    """
    number, dimensions = points.shape
    points = jnp.where(mask[:, None], jnp.minimum(points, REFERENCE), REFERENCE)
    points = jnp.pad(points, ((0, 0), (0, 3 - dimensions)), constant_values=REFERENCE - 1)
    across, along = jnp.argsort(points[:, 0]), jnp.argsort(points[:, 1])
    widths = jnp.diff(points[across, 0], append=REFERENCE)[:, None] * jnp.diff(points[along, 1], append=REFERENCE)[None]
    row, column = jnp.argsort(across), jnp.argsort(along)
    empty = jnp.full((number, number), REFERENCE)
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
