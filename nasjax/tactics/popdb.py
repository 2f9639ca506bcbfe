"""Search-space reduction by PopDB (arXiv:2202.12954, section 3.4): drops options that good architectures do not use."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.predictors import Inputs
from nasjax.space import Option, SearchSpace
from nasjax.tactics.base import Fit, Measured, Problem, Scores, Warm
from nasjax.tactics.predicting import fit_predictors, scoring_function, sort_by_rank
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Reduced:
    """A reduced search space: per gene of the `full` space the indices of the options kept."""

    full: SearchSpace
    options: tuple[tuple[int, ...], ...]

    @cached_property
    def space(self) -> SearchSpace:
        """The search space with only the options that are kept."""
        genes = zip(self.full.genes, self.options, strict=True)
        return SearchSpace(tuple(replace(gene, options=tuple(gene.options[i] for i in kept)) for gene, kept in genes))

    def dropped(self) -> dict[str, list[Option]]:
        """The options that were dropped, by gene name; genes that keep all options are left out."""
        genes = zip(self.full.genes, self.options, strict=True)
        dropped = {gene.name: [o for i, o in enumerate(gene.options) if i not in kept] for gene, kept in genes}
        return {name: options for name, options in dropped.items() if options}

    def to_full(self, archs: Population) -> Population:
        """Architectures of the reduced space as architectures of the full one (NumPy in, NumPy out; JAX in, JAX out)."""
        table = np.zeros((len(self.options), max(self.full.counts)), np.int32)
        for row, kept in zip(table, self.options, strict=True):
            row[: len(kept)] = kept
        library = np if isinstance(archs, np.ndarray) else jnp
        columns = np.arange(len(self.options))
        lifted = library.asarray(table)[columns[None], archs]
        # Inactive genes have index 0 in both spaces, whatever option that is.
        return self.full.canonical(library.where(self.space.active(archs), lifted, 0))

    def to_reduced(self, archs: Population) -> tuple[Int[np.ndarray, "pop genes"], Bool[np.ndarray, " pop"]]:
        """Architectures of the full space as architectures of the reduced one, and a mask of those that it contains.

        Rows outside the mask are meaningless.
        """
        archs = np.asarray(archs)
        table = np.full((len(self.options), max(self.full.counts)), -1, np.int32)
        for row, kept in zip(table, self.options, strict=True):
            row[list(kept)] = np.arange(len(kept))
        lowered = table[np.arange(len(self.options))[None], archs]
        inside = ((lowered >= 0) | ~np.asarray(self.full.active(archs))).all(1)
        return np.asarray(self.space.canonical(np.maximum(lowered, 0)), np.int32), inside


@dataclass(frozen=True)
class LiftedFunction:
    """A function of architectures of the full space, called with those of the reduced one; equal instances compile once."""

    function: Callable[[Population], Any]
    reduced: Reduced

    def __call__(self, archs: Population) -> Any:
        return self.function(self.reduced.to_full(archs))


@dataclass(frozen=True)
class PopDB:
    """Search-space reduction from predictions (see the module).

    Predictors are fitted to `sample` random networks, or to a warm start with as many, and searched for `predictions`
    evaluations. The final population of `population` architectures is clustered by HDBSCAN with at least `cluster` in each.
    Options of a gene that a smaller share than `least` of the clustered architectures has are dropped. Raises ConfigError
    for invalid settings.
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
        """Raises ConfigError if the sample would take the whole budget."""
        if problem.evaluations <= self.sample and not self.has_enough_values(problem.warm):
            raise ConfigError(
                f"space_reduction.sample={self.sample} of evaluations={problem.evaluations} leaves none for the tactic: "
                f"make the sample smaller or evaluations larger"
            )

    def has_enough_values(self, warm: Warm | None) -> bool:
        """Whether a warm start has enough values to replace the sample."""
        return warm is not None and int(np.isfinite(warm.values).all(1).sum()) >= self.sample

    def reduce(self, key: PRNGKey, state: Measured) -> tuple[Reduced, tuple[Fit, ...]]:
        """The reduced space by predictions from the measurements in `state`, and the errors of the predictors."""
        problem = state.problem
        algorithm = replace(problem.algorithm, population=self.population)  # type: ignore[type-var]
        models, state = fit_predictors(state)
        score, goals = scoring_function(problem), len(problem.reference)
        generations = max(1, self.predictions // self.population)
        inner = evolve(algorithm, problem.space, score, models, key, generations, None, goals)
        archs = sort_by_rank(inner.archs, *score(models, inner.archs))
        if problem.repair is None:
            return Reduced(problem.space, self.kept_options(problem.space, archs)), state.fits
        archs = np.unique(problem.repair(archs), axis=0)
        parts = (Reduced(problem.space, self.kept_options(problem.space, archs, least)) for least in (self.least, 0.0))
        # If no row of a table consists of common options only, all options of the good rows are kept.
        return next(part for part in parts if part.to_reduced(problem.rows)[1].any()), state.fits  # type: ignore[arg-type]

    def kept_options(self, space: SearchSpace, archs: Population, least: float | None = None) -> tuple[tuple[int, ...], ...]:
        """Per gene the indices of the options that are common among clustered architectures (all count if none cluster)."""
        least = self.least if least is None else least
        from sklearn.cluster import HDBSCAN  # Takes a second.

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


def restrict(problem: Problem, reduced: Reduced) -> Problem:
    """The same problem on a reduced space."""
    costs = tuple(cost and LiftedFunction(cost, reduced) for cost in problem.costs)
    parts = problem.inputs.parts and LiftedFunction(problem.inputs.parts, reduced)
    graph = problem.inputs.graph and problem.inputs.graph.restricted(reduced.space, reduced.options)
    warm, rows, repair = problem.warm, problem.rows, problem.repair
    if warm is not None:
        archs, inside = reduced.to_reduced(warm.archs)
        targets = None if warm.targets is None else warm.targets[inside]
        warm = Warm(archs[inside], warm.values[inside], targets, warm.lacking)
    if rows is not None:
        rows, inside = reduced.to_reduced(rows)
        rows = rows[inside]
        repair = _NearestRow(problem, reduced, rows)
    proxies = {name: LiftedFunction(score, reduced) for name, score in problem.proxies.items()}
    scores = problem.scores
    if scores is not None:
        archs, inside = reduced.to_reduced(scores.archs)
        scores = Scores(archs[inside], scores.values[inside])
    return replace(problem, space=reduced.space, costs=costs, inputs=Inputs(reduced.space, parts, graph), warm=warm,
                   rows=rows, repair=repair, proxies=proxies, scores=scores)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _NearestRow:
    """Maps architectures of the reduced space to rows of a table: the repaired one if it is kept, else the nearest row."""

    problem: Problem
    reduced: Reduced
    rows: Population

    def __call__(self, archs: Population) -> Population:
        meant = self.problem.repair(np.asarray(self.reduced.to_full(np.asarray(archs))))  # type: ignore[misc]
        lowered, inside = self.reduced.to_reduced(meant)
        known = set(map(bytes, np.asarray(self.rows, np.int32)))
        for i, arch in enumerate(lowered):
            if not inside[i] or bytes(arch) not in known:
                lowered[i] = self.rows[int((np.asarray(self.rows) != arch).sum(1).argmin())]
        return lowered


REDUCTIONS = {"popdb": PopDB}
"""Methods of search-space reduction by name, as in `space_reduction=NAME`."""
