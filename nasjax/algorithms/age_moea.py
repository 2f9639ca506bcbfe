"""AGE-MOEA (Panichella 2019): diversity along the front is measured in the norm that fits the front's shape."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.decomposition import normalised
from nasjax.algorithms.genetic import Genetic
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class AGEMOEA(Genetic):
    """AGE-MOEA: survival by front, then by distance to selected points and proximity to the ideal point."""

    def _survival_keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        first = ranks == 0
        scaled = jnp.nan_to_num(normalised(values, first), nan=1e12)
        extremes = _extreme_points(scaled, first)
        power = _front_norm(scaled, first, extremes)
        size = (jnp.abs(scaled) ** power).sum(axis=1) ** (1 / power)
        # Beyond the first front, points nearer to the ideal point are better.
        score = jnp.where(
            first, _survival_score(scaled, first, extremes, size, power, self.population), 1 / jnp.maximum(size, 1e-8)
        )
        return -score, ranks


def _squared_distance_to_axis(scaled: Float[Array, "all obj"], axis: Float[Array, " obj"]) -> Float[Array, " all"]:
    """The squared distance of each row from the line through the ideal point along `axis`."""
    along = (scaled * axis[None]).sum(axis=1) / (axis**2).sum()
    return ((scaled - along[:, None] * axis[None]) ** 2).sum(axis=1)


def _extreme_points(scaled: Float[Array, "all obj"], first: Bool[Array, " all"]) -> Bool[Array, " all"]:
    """Mask of the points of the first front nearest to each axis."""
    extremes = jnp.zeros(first.shape, bool)
    for axis in jnp.eye(scaled.shape[1]):
        apart = jnp.where(first & ~extremes, _squared_distance_to_axis(scaled, axis + 1e-6), jnp.inf)
        extremes = extremes.at[apart.argmin()].set(True)
    return extremes & first


def _front_norm(
    scaled: Float[Array, "all obj"], first: Bool[Array, " all"], extremes: Bool[Array, " all"]
) -> Float[Array, ""]:
    """The exponent p of the L_p norm whose unit sphere passes through the middle of the front.

    1 is a plane, 2 a sphere, less than 1 a convex front; limited to 0.1 to 20.
    """
    dimensions = scaled.shape[1]
    inner = first & ~extremes
    middle = scaled[jnp.where(inner, _squared_distance_to_axis(scaled, jnp.ones(dimensions)), jnp.inf).argmin()].mean()
    power = jnp.log(float(dimensions)) / -jnp.log(jnp.clip(middle, 1e-6, 1 - 1e-6))
    return jnp.where(inner.any() & (power > 0.1), jnp.clip(power, 0.1, 20.0), 1.0)


def _survival_score(
    scaled: Float[Array, "all obj"],
    first: Bool[Array, " all"],
    extremes: Bool[Array, " all"],
    size: Float[Array, " all"],
    power: Float[Array, ""],
    number: int,
) -> Float[Array, " all"]:
    """Survival scores of the first front: infinite for extreme points, then greedily in the order of selection.

    The next point selected is the one with the greatest summed distance to its two nearest selected points, divided by its
    own norm.
    """
    scaled = jnp.where(first[:, None], scaled, 0)
    size = jnp.where(size < 1e-8, 1, size)

    def apart(row: Int[Array, ""]) -> Float[Array, " all"]:
        distance = (jnp.abs(scaled - scaled[row][None]) ** power).sum(axis=1) ** (1 / power)
        return jnp.maximum(distance, 1e-8) / size

    def choose(score, near, row, value):
        new = apart(row)
        nearest, second = near
        near = jnp.minimum(nearest, new), jnp.minimum(second, jnp.maximum(nearest, new))
        return jnp.where(jnp.arange(len(score)) == row, value, score), near

    def turn(_, carry):
        score, near = carry
        nearest, second = near
        # With only one point selected, its distance alone counts. Rows not yet selected have a negative score.
        total = nearest + jnp.where(jnp.isinf(second), 0, second)
        total = jnp.where(first & (score < 0), total, -1.0)
        row = total.argmax()
        chosen = choose(score, near, row, total[row])
        return _select(total[row] >= 0, chosen, (score, near))

    def corner(index, carry):
        row = jnp.argsort(~extremes)[index]
        return _select(extremes[row], choose(*carry, row, jnp.inf), carry)

    far = jnp.full(first.shape, jnp.inf)
    carry = jnp.full(first.shape, -1.0), (far, far)
    carry = lax.fori_loop(0, scaled.shape[1], corner, carry)
    return lax.fori_loop(0, number, turn, carry)[0]


def _select(condition, yes, no):
    """`jnp.where` over the leaves of two loop carries."""
    score, (nearest, second) = yes
    other, (near, after) = no
    return jnp.where(condition, score, other), (jnp.where(condition, nearest, near), jnp.where(condition, second, after))
