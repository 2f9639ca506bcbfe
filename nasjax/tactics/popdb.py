"""Search-space reduction by PopDB (arXiv:2202.12954, section 3.4): what good networks do not use is dropped."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int
from sklearn.cluster import HDBSCAN

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.predictors import Inputs
from nasjax.space import SearchSpace
from nasjax.tactics.base import Fit, Measured, Problem, Warm
from nasjax.tactics.predicting import fitted, ranked, scored
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Reduced:
    """A part of a space: of every gene the options with these indices; `space` is a search space like any other."""

    whole: SearchSpace
    options: tuple[tuple[int, ...], ...]

    @cached_property
    def space(self) -> SearchSpace:
        """The space of the options that are left."""
        genes = zip(self.whole.genes, self.options, strict=True)
        return SearchSpace(tuple(replace(gene, options=tuple(gene.options[i] for i in kept)) for gene, kept in genes))

    def dropped(self) -> dict[str, list[Any]]:
        """The options that are gone, by gene."""
        genes = zip(self.whole.genes, self.options, strict=True)
        gone = {gene.name: [o for i, o in enumerate(gene.options) if i not in kept] for gene, kept in genes}
        return {name: options for name, options in gone.items() if options}

    def lift(self, archs: Population) -> Population:
        """Architectures of the part as those of the whole (NumPy in, NumPy out; JAX in, JAX out)."""
        table = np.zeros((len(self.options), max(self.whole.counts)), np.int32)
        for row, kept in zip(table, self.options, strict=True):
            row[: len(kept)] = kept
        library = np if isinstance(archs, np.ndarray) else jnp
        columns = np.arange(len(self.options))
        lifted = library.asarray(table)[columns[None], archs]
        # A gene that does not exist has index 0 in either, whatever option that is.
        return self.whole.canonical(library.where(self.space.active(archs), lifted, 0))

    def lower(self, archs: Population) -> tuple[Int[np.ndarray, "pop genes"], Bool[np.ndarray, " pop"]]:
        """Architectures of the whole as those of the part, and which of them are in it (the others' rows mean nothing)."""
        archs = np.asarray(archs)
        table = np.full((len(self.options), max(self.whole.counts)), -1, np.int32)
        for row, kept in zip(table, self.options, strict=True):
            row[list(kept)] = np.arange(len(kept))
        lowered = table[np.arange(len(self.options))[None], archs]
        inside = ((lowered >= 0) | ~np.asarray(self.whole.active(archs))).all(1)
        return np.asarray(self.space.canonical(np.maximum(lowered, 0)), np.int32), inside


@dataclass(frozen=True)
class Lifted:
    """A function of the whole space's architectures as one of a part's; equal ones are one function."""

    function: Callable[[Population], Any]
    reduced: Reduced

    def __call__(self, archs: Population) -> Any:
        return self.function(self.reduced.lift(archs))


@dataclass(frozen=True)
class PopDB:
    """Predictors learn from `sample` random validations (from the warm start where there is one), then are searched.

    The search makes `predictions`, its population of `population` good architectures is clustered by HDBSCAN (at least
    `cluster` in each), and of every gene the options are dropped that less than the share `least` of those in clusters have.
    """

    sample: int = 100
    predictions: int = 100_000
    population: int = 1000
    cluster: int = 20
    least: float = 0.01

    def __post_init__(self):
        for name in ("sample", "predictions", "population", "cluster"):
            if getattr(self, name) < 2:
                raise ConfigError(f"space_reduction.{name} must be at least 2, not {getattr(self, name)}")
        if not 0 <= self.least < 1:
            raise ConfigError(f"space_reduction.least must be from 0 to below 1, not {self.least}")

    def check(self, problem: Problem) -> None:
        """Raises ConfigError where the sample would take the whole budget."""
        if problem.evaluations <= self.sample and not self.informed(problem.warm):
            raise ConfigError(
                f"space_reduction.sample={self.sample} of evaluations={problem.evaluations} leaves none for the tactic: "
                f"make the sample smaller, or evaluations larger"
            )

    def informed(self, warm: Warm | None) -> bool:
        """Whether an earlier search has values enough to do without a sample."""
        return warm is not None and int(np.isfinite(warm.values).all(1).sum()) >= self.sample

    def reduce(self, key: PRNGKey, state: Measured) -> tuple[Reduced, tuple[Fit, ...]]:
        """The part of the space that the good architectures make use of, as predicted from what was measured.

        And how good the predictors were.
        """
        problem = state.problem
        algorithm = replace(problem.algorithm, population=self.population)  # type: ignore[type-var]
        models, told = fitted(state)
        score, goals = scored(problem), len(problem.reference)
        generations = max(1, self.predictions // self.population)
        inner = evolve(algorithm, problem.space, score, models, key, generations, None, goals)
        archs = ranked(inner.archs, *score(models, inner.archs))
        if problem.repair is None:
            return Reduced(problem.space, self.kept(problem.space, archs)), told.fits
        archs = np.unique(problem.repair(archs), axis=0)
        parts = (Reduced(problem.space, self.kept(problem.space, archs, least)) for least in (self.least, 0.0))
        # Where no row of a table has only options that are common, all options of the good rows stay.
        return next(part for part in parts if part.lower(problem.rows)[1].any()), told.fits  # type: ignore[arg-type]

    def kept(self, space: SearchSpace, archs: Population, least: float | None = None) -> tuple[tuple[int, ...], ...]:
        """Of every gene the options that architectures in clusters have often enough; all of them in none: all count."""
        least = self.least if least is None else least
        features = np.asarray(space.features(archs), np.float64)
        labels = HDBSCAN(min_cluster_size=min(self.cluster, len(archs)), copy=True).fit_predict(features)
        archs = archs[labels >= 0] if (labels >= 0).any() else archs
        on = np.asarray(space.active(archs))
        options = []
        for gene, column, exists in zip(space.genes, archs.T, on.T, strict=True):
            counts = np.bincount(column[exists], minlength=len(gene.options))
            often = np.flatnonzero(counts >= np.maximum(least * counts.sum(), 1)) if counts.sum() else np.arange(len(counts))
            options.append(tuple(often.tolist()))
        return tuple(options)


def within(problem: Problem, reduced: Reduced) -> Problem:
    """The same problem on a part of its space."""
    costs = tuple(cost and Lifted(cost, reduced) for cost in problem.costs)
    parts = problem.inputs.parts and Lifted(problem.inputs.parts, reduced)
    warm, rows, repair = problem.warm, problem.rows, problem.repair
    if warm is not None:
        archs, inside = reduced.lower(warm.archs)
        warm = Warm(archs[inside], warm.values[inside])
    if rows is not None:
        rows, inside = reduced.lower(rows)
        rows = rows[inside]
        repair = _Nearest(problem, reduced, rows)
    proxies = {name: Lifted(score, reduced) for name, score in problem.proxies.items()}
    return replace(problem, space=reduced.space, costs=costs, inputs=Inputs(reduced.space, parts), warm=warm, rows=rows,
                   repair=repair, proxies=proxies)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Nearest:
    """Replaces architectures of the part by rows of a table: those that are meant, or else those most alike."""

    problem: Problem
    reduced: Reduced
    rows: Population

    def __call__(self, archs: Population) -> Population:
        meant = self.problem.repair(np.asarray(self.reduced.lift(np.asarray(archs))))  # type: ignore[misc]
        lowered, inside = self.reduced.lower(meant)
        known = set(map(bytes, np.asarray(self.rows, np.int32)))
        for i, arch in enumerate(lowered):
            if not inside[i] or bytes(arch) not in known:
                lowered[i] = self.rows[int((np.asarray(self.rows) != arch).sum(1).argmin())]
        return lowered


REDUCTIONS = {"popdb": PopDB}
"""Ways to make a space smaller before it is searched, by name."""
