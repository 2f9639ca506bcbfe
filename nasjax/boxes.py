"""Hypervolumes of three objectives and more, by the boxes that make up what is not dominated yet.

Source: the search region of Klamroth, Lacour and Vanderpooten (2015) in the disjoint boxes of Lacour, Klamroth and Fonseca,
"A box decomposition algorithm to compute the hypervolume indicator" (2017).
"""

import numpy as np
from jaxtyping import Float, Int

MOST_BOXES = 200_000
"""Boxes from which on further gains are estimated: ten objectives have so many after about 60 points that are spread evenly,
six after more than 1,000."""

SAMPLES = 2**13
"""Points that estimate a gain, to about 1 % of it."""


def spread_points(number: int, dimensions: int) -> Float[np.ndarray, "number dimensions"]:
    """Points spread evenly over the unit cube: Roberts' additive recurrence, on powers of the generalised golden ratio."""
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(1, number + 1)[:, None] * steps) % 1


def volumes(
    points: Float[np.ndarray, "points obj"], reference: Float[np.ndarray, " obj"], most: int = MOST_BOXES
) -> Float[np.ndarray, " points"]:
    """The hypervolume of the first point, of the first two, and so on; all are better than the reference in every objective.

    Exact up to rounding as long as there are at most `most` boxes; each gain from then on is an estimate.
    """
    number, dimensions = points.shape
    ranks, values = _ranked(points, reference)
    # A box ends at `upper` ranks; its j-th bound is that of the point whose ranks are `bounds[:, j]`.
    upper = np.full((1, dimensions), number + 1, np.int32)
    bounds = np.zeros((1, dimensions, dimensions), np.int32)
    bounds[0, range(dimensions), range(dimensions)] = number + 1
    total, found = 0.0, np.zeros(number)
    for i, point in enumerate(ranks):
        if len(upper) > most:
            total += _estimated_gain(points[:i], points[i], reference)
        elif (inside := (point < upper).all(1)).any():
            old = upper[inside], bounds[inside]
            new = _split(*old, point)
            total += max(0.0, _volume(*old, values) - _volume(*new, values))
            upper, bounds = (np.concatenate([all_[~inside], made]) for all_, made in zip((upper, bounds), new, strict=True))
        found[i] = total
    return found


def _ranked(
    points: Float[np.ndarray, "points obj"], reference: Float[np.ndarray, " obj"]
) -> tuple[Int[np.ndarray, "points obj"], Float[np.ndarray, "ranks obj"]]:
    """Ranks from 1 in each objective, without ties, and the value of each: rank 0 is the ideal, the last the reference."""
    ranks, ordered = np.empty(points.shape, np.int32), np.sort(points, axis=0)
    for ranked, order in zip(ranks.T, np.argsort(points, axis=0, kind="stable").T, strict=True):
        ranked[order] = np.arange(1, len(points) + 1)
    return ranks, np.concatenate([points.min(0, initial=np.inf)[None], ordered, reference[None]])


def _split(
    upper: Int[np.ndarray, "boxes obj"], bounds: Int[np.ndarray, "boxes obj obj"], point: Int[np.ndarray, " obj"]
) -> tuple[Int[np.ndarray, "new obj"], Int[np.ndarray, "new obj obj"]]:
    """What a point leaves of boxes that it lies in: in every objective the part below it, unless that is part of another."""
    made = []
    for j, rank in enumerate(point):
        others = np.delete(bounds[:, :, j], j, axis=1)
        kept = rank > others.max(1)
        below, new = upper[kept], bounds[kept]
        below[:, j], new[:, j] = rank, point
        made.append((below, new))
    return tuple(np.concatenate(parts) for parts in zip(*made, strict=True))  # type: ignore[return-value]


def _volume(
    upper: Int[np.ndarray, "boxes obj"], bounds: Int[np.ndarray, "boxes obj obj"], values: Float[np.ndarray, "ranks obj"]
) -> float:
    """The sum of the boxes' volumes. A box begins, in objective j, at the largest of its first j bounds."""
    sizes = values[upper[:, 0], 0] - values[0, 0]
    for j in range(1, upper.shape[1]):
        sizes = sizes * (values[upper[:, j], j] - values[bounds[:, :j, j].max(1), j])
    return float(sizes.sum())


def _estimated_gain(
    earlier: Float[np.ndarray, "points obj"], point: Float[np.ndarray, " obj"], reference: Float[np.ndarray, " obj"]
) -> float:
    """The volume that only this point dominates: the share of points between it and the reference that no other does."""
    samples = point + spread_points(SAMPLES, len(point)) * (reference - point)
    for other in earlier:
        samples = samples[(samples < other).any(1)]
    return float(np.prod(reference - point) * len(samples) / SAMPLES)
