"""AGE-MOEA (Panichella 2019): spread along the front measured in the norm that fits the front's own shape."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.decomposition import normalised
from nasjax.algorithms.genetic import Genetic
from nasjax.types import PRNGKey


@dataclass(frozen=True)
class AGEMOEA(Genetic):
    """The best survive by front, then by distance from those chosen and nearness to the ideal point, in the front's norm."""

    def _keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        first = ranks == 0
        scaled = jnp.nan_to_num(normalised(values, first), nan=1e12)
        corners = _corners(scaled, first)
        power = _shape(scaled, first, corners)
        size = (jnp.abs(scaled) ** power).sum(axis=1) ** (1 / power)
        # Beyond the first front what is nearer to the ideal point is better.
        score = jnp.where(first, _spread(scaled, first, corners, size, power, self.population), 1 / jnp.maximum(size, 1e-8))
        return -score, ranks


def _off_axis(scaled: Float[Array, "all obj"], axis: Float[Array, " obj"]) -> Float[Array, " all"]:
    """The squared distance of each row from the line through the ideal point along `axis`."""
    along = (scaled * axis[None]).sum(axis=1) / (axis**2).sum()
    return ((scaled - along[:, None] * axis[None]) ** 2).sum(axis=1)


def _corners(scaled: Float[Array, "all obj"], first: Bool[Array, " all"]) -> Bool[Array, " all"]:
    """The row of the first front nearest to each axis."""
    corners = jnp.zeros(first.shape, bool)
    for axis in jnp.eye(scaled.shape[1]):
        apart = jnp.where(first & ~corners, _off_axis(scaled, axis + 1e-6), jnp.inf)
        corners = corners.at[apart.argmin()].set(True)
    return corners & first


def _shape(scaled: Float[Array, "all obj"], first: Bool[Array, " all"], corners: Bool[Array, " all"]) -> Float[Array, ""]:
    """The norm whose unit sphere passes through the middle of the front: 1 is a plane, 2 a ball, less is convex."""
    dimensions = scaled.shape[1]
    inner = first & ~corners
    middle = scaled[jnp.where(inner, _off_axis(scaled, jnp.ones(dimensions)), jnp.inf).argmin()].mean()
    power = jnp.log(float(dimensions)) / -jnp.log(jnp.clip(middle, 1e-6, 1 - 1e-6))
    return jnp.where(inner.any() & (power > 0.1), jnp.clip(power, 0.1, 20.0), 1.0)


def _spread(
    scaled: Float[Array, "all obj"],
    first: Bool[Array, " all"],
    corners: Bool[Array, " all"],
    size: Float[Array, " all"],
    power: Float[Array, ""],
    number: int,
) -> Float[Array, " all"]:
    """The survival score of the first front: corners, then at each turn the row that is farthest from its two nearest
    chosen neighbours, relative to its own size."""
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
        # With one neighbour chosen its distance alone counts; rows not chosen yet have a negative score.
        total = nearest + jnp.where(jnp.isinf(second), 0, second)
        total = jnp.where(first & (score < 0), total, -1.0)
        row = total.argmax()
        chosen = choose(score, near, row, total[row])
        return _either(total[row] >= 0, chosen, (score, near))

    def corner(index, carry):
        row = jnp.argsort(~corners)[index]
        return _either(corners[row], choose(*carry, row, jnp.inf), carry)

    far = jnp.full(first.shape, jnp.inf)
    carry = jnp.full(first.shape, -1.0), (far, far)
    carry = lax.fori_loop(0, scaled.shape[1], corner, carry)
    return lax.fori_loop(0, number, turn, carry)[0]


def _either(condition, yes, no):
    """`jnp.where` over the leaves of two carries."""
    score, (nearest, second) = yes
    other, (near, after) = no
    return jnp.where(condition, score, other), (jnp.where(condition, nearest, near), jnp.where(condition, second, after))
