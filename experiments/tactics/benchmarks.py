"""A problem that tactics are compared on: its true values, noise, reference points and best front; networks as numbers."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import yardstick
from jaxtyping import Array, Float

from nasjax.graphs import Graph
from nasjax.pareto import non_dominated_exact
from nasjax.predictors import Inputs
from nasjax.space import SearchSpace
from nasjax.types import Objectives, Population


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A problem whose true values are known; all objectives are minimised.

    Its columns are the objectives, then what only constraints bound.

    Attributes:
      reference: the loose reference point of the hypervolume.
      told: the reference point that searches are told, as they would be of any super-network: 0 % accuracy (or BLEU) and
        the costs of the dearest network.
      true: returns the true values of architectures in all columns.
      noise: standard deviation of a measurement, for each column.
      costs: for each column the jittable function that computes it; None if it is measured.
      parts: the exact cost of each part of the network, if there is one.
      archs: all architectures of a table; None for a surrogate.
      known: the best known front of a surrogate.
      volume: the best known hypervolume of a surrogate, with the loose reference.
      graph: the graph of its cells, if it has any.
      limits: the greatest values allowed of the columns after the objectives.
    """

    name: str
    space: SearchSpace
    objectives: tuple[str, ...]
    reference: Float[np.ndarray, " obj"]
    told: Float[np.ndarray, " obj"]
    true: Callable[[Population], Objectives]
    noise: tuple[float, ...] = (0.0, 0.0)
    costs: tuple[Callable[[Population], Float[Array, " pop"]] | None, ...] = (None, None)
    parts: Callable[[Population], Float[Array, "pop parts"]] | None = None
    archs: Population | None = None
    known: Population | None = None
    volume: float | None = None
    graph: Graph | None = None
    limits: tuple[float, ...] = ()

    def measure(self, archs: Population, seed: int) -> Objectives:
        """Returns true values with noise; the same architecture and seed always give the same values."""
        archs = np.ascontiguousarray(archs, np.int32)
        values = self.true(archs)
        if not any(self.noise):
            return values
        draws = [
            np.random.default_rng([*sha256(a.tobytes()).digest()[:8], seed]).normal(size=len(self.noise)) for a in archs
        ]
        return values + np.array(draws).reshape(values.shape) * self.noise

    def feasible(self, values: Float[np.ndarray, "pop columns"]) -> Objectives:
        """Returns the objectives of columns, NaN where a limit is broken."""
        number = len(self.objectives)
        keep = (values[:, number:] <= np.array(self.limits)).all(1)
        return np.where(keep[:, None], values[:, :number], np.nan)

    @cached_property
    def inputs(self) -> Inputs:
        """The inputs of nasjax's predictors: one object for each problem, so that searches in one process compile once."""
        return Inputs(self.space, self.parts, self.graph)

    @cached_property
    def front(self) -> Objectives:
        """The true front of a table, or the best known one of a surrogate (empty if there is none); distinct values only."""
        archs = self.known if self.archs is None else self.archs
        if archs is None or not len(archs):
            return np.zeros((0, len(self.objectives)))
        values = self.feasible(self.true(archs))
        values = values[~np.isnan(values).any(1)]
        return np.unique(values[non_dominated_exact(values)], axis=0)

    @cached_property
    def references(self) -> dict[str, Float[np.ndarray, " obj"]]:
        """The reference points of the hypervolume by name."""
        archs = draw(np.random.default_rng(0), self.space, TYPICAL) if self.archs is None else self.archs
        return {"loose": self.reference, "tight": yardstick.tight(self.feasible(self.true(self.space.canonical(archs))))}

    @cached_property
    def best(self) -> dict[str, float]:
        """The hypervolume of the front by reference point, or the best known one; only those that are known."""
        known = {} if self.volume is None else {"loose": self.volume}
        if not len(self.front):
            return known
        volumes = {name: yardstick.volume(self.front, reference) for name, reference in self.references.items()}
        return volumes | {name: max(volumes[name], volume) for name, volume in known.items()}


TYPICAL = 10_000
"""Random networks of a surrogate whose 95th percentiles are the tight reference point."""


def draw(rng: np.random.Generator, space: SearchSpace, number: int) -> Population:
    """Returns random raw vectors, every gene uniform over its options."""
    return np.stack([rng.integers(0, count, number) for count in space.counts], 1).astype(np.int32)


def numbers(archs: Population, counts: Sequence[int]) -> list[int]:
    """Returns each architecture as a number, whose digits are the option indices, the first gene's most significant.

    These are Python's integers: spaces may have more than 2^63 networks.
    """
    found = [0] * len(archs)
    for column, count in zip(np.asarray(archs).T.tolist(), counts, strict=True):
        found = [number * count + digit for number, digit in zip(found, column, strict=True)]
    return found


def architectures(found: Iterable[int], counts: Sequence[int]) -> Population:
    """Returns the architectures of numbers; the inverse of `numbers`."""
    left, columns = list(found), []
    for count in reversed(counts):
        columns.append([number % count for number in left])
        left = [number // count for number in left]
    return np.array(columns[::-1], np.int32).T.reshape(len(left), len(counts))
