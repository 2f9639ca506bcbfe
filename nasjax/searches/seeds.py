"""One search of a table for each of many seeds: ablations. Tactics that can run in one vmapped program, others in turn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.algorithms import Algorithm
from nasjax.errors import ConfigError
from nasjax.generators import result_of
from nasjax.jax_defaults import with_jax_defaults
from nasjax.objectives import LIMIT, Goals
from nasjax.pareto import hypervolumes
from nasjax.predictors import Predictor
from nasjax.program_cache import cache_programs
from nasjax.runs.folder import check_seed
from nasjax.searches.problem import SearchProblem, search_problem
from nasjax.searches.proxy_scores import with_proxies
from nasjax.searches.settings import SearchSettings, check_settings
from nasjax.searches.tactic_problem import posed
from nasjax.supernets.tabular import TabularNet
from nasjax.tactics import Problem, Tactic
from nasjax.tactics.vmapped import can_be_vmapped, run_seeds
from nasjax.types import Population

BLOCK = 32
"""Seeds that are searched at once where they are vmapped, which is what a killed command may lose."""


@dataclass(frozen=True, eq=False)
class Runs:
    """One search a seed: the architectures in the order they were evaluated, and the values of the goals, minimised.

    A row of values is NaN where the evaluation failed.
    """

    goals: Goals
    seeds: tuple[int, ...]
    archs: Int[np.ndarray, "seeds evaluations genes"]
    values: Float[np.ndarray, "seeds evaluations columns"]

    @cached_property
    def hypervolumes(self) -> Float[np.ndarray, "seeds evaluations"]:
        """The hypervolume of each seed's front after every evaluation; reference point and constraints as in a search."""
        return np.array([hypervolumes(self.goals.feasible(values), self.goals.reference) for values in self.values])


def search_seeds(
    net: TabularNet,
    seeds: Sequence[int],
    *,
    objectives: Sequence[str],
    constraints: Sequence[str] = (),
    tactic: str | Mapping[str, Any] | Tactic = "concurrent",
    algorithm: str | Mapping[str, Any] | Algorithm = "nsga2",
    predictor: str | Mapping[str, Any] | Predictor = "ridge",
    evaluations: int = 128,
    references: Mapping[str, float] | None = None,
    warm_start: str | Path | None = None,
    proxies: Sequence[str] = (),
) -> Runs:
    """Searches a table once for every seed.

    Each search evaluates what `search` evaluates with that seed, near ties of vmapped predictions apart. Arguments are those
    of `search`, with another default tactic and predictor, which are vmapped (see `can_be_vmapped`): with all seeds on the
    accelerator at once. Raises ConfigError for what is no table, and for invalid settings.
    """
    if not len(seeds):
        raise ConfigError("seeds must name at least one seed")
    every = SeedSearches.of(
        net, objectives=objectives, constraints=constraints, tactic=tactic, algorithm=algorithm, predictor=predictor,
        evaluations=evaluations, references=references, warm_start=warm_start, proxies=proxies,
    )  # fmt: skip
    blocks = list(every.runs(seeds))
    archs, values = (np.concatenate(parts) for parts in zip(*((b.archs, b.values) for b in blocks), strict=True))
    return Runs(every.goals, tuple(seeds), archs, values)


@dataclass(frozen=True, eq=False)
class SeedSearches:
    """Searches of one table that differ in their seed alone."""

    net: TabularNet
    settings: SearchSettings
    problem: SearchProblem
    goals: Goals
    for_tactic: Problem

    @classmethod
    @with_jax_defaults
    def of(cls, net: TabularNet, **settings: Any) -> "SeedSearches":
        """Searches with these settings, which are those of `search_seeds`. Raises ConfigError as it does."""
        if not isinstance(net, TabularNet):
            raise ConfigError("many seeds need a table (supernet=tabular): what else there is would be measured for each")
        cache_programs()
        unused: dict[str, Any] = dict.fromkeys(("space_reduction", "run", "archive", "minutes", "tactic_device"))
        checked = check_settings(**settings, **unused, seed=0)
        problem = search_problem(net, None)
        goals, for_tactic = posed(checked, problem, net)
        for_tactic = result_of(with_proxies(for_tactic, checked.proxies))
        checked.tactic.init(jax.random.key(0), for_tactic)  # It refuses an unsuitable problem.
        return cls(net, checked, problem, goals, for_tactic)

    @with_jax_defaults
    def runs(self, seeds: Sequence[int]) -> Iterator[Runs]:
        """Yields the runs of the next seeds, until all are done: of one, or of `BLOCK` where they are vmapped.

        Raises ConfigError for a seed that is out of range.
        """
        for seed in seeds:
            check_seed(seed)
        tactic, columns = self.settings.tactic, self._values(self.net.archs)
        lookup = _TableLookup.of(self.net.archs, columns)
        if lookup is None or np.isnan(columns).any() or not can_be_vmapped(tactic, self.for_tactic):
            for seed in seeds:
                archs = _search(tactic, self.for_tactic, self._values, seed)
                yield Runs(self.goals, (seed,), archs[None], self._values(archs)[None])
            return
        for i in range(0, len(seeds), BLOCK):
            block = tuple(seeds[i : i + BLOCK])
            # Repeated up to a whole block: one shape, one compilation.
            keys = jnp.stack([jax.random.key(seed) for seed in np.resize(block, min(BLOCK, len(seeds))).tolist()])
            archs = np.asarray(run_seeds(tactic, self.for_tactic, lookup, keys)[0])[: len(block)]
            values = self._values(archs.reshape(-1, archs.shape[2]))
            yield Runs(self.goals, block, archs, values.reshape(*archs.shape[:2], -1))

    def _values(self, archs: Population) -> Float[np.ndarray, "rows columns"]:
        """The columns of the goals, minimised; a row is NaN where a metric of the table is, or is beyond ±LIMIT."""
        found = self.net(archs)
        genes = {name: gene.exact(archs) for name, gene in self.problem.bounded_genes(self.goals).items()}
        finite = (np.abs(np.stack([found[name] for name in self.net.metrics], 1)) <= LIMIT).all(1)
        return np.where(finite[:, None], self.goals.minimised(found | genes), np.nan)


def _search(tactic: Tactic, problem: Problem, measure: Any, seed: int) -> Int[np.ndarray, "evaluations genes"]:
    """What a search with this seed evaluates, in order."""
    state, told = tactic.init(jax.random.key(seed), problem), [np.zeros((0, len(problem.space.genes)), np.int32)]
    left = problem.evaluations
    while left:
        archs, state = tactic.ask(state)
        archs = np.asarray(archs, np.int32)[:left]
        if not len(archs):
            break
        state = tactic.tell(state, archs, measure(archs))
        told.append(archs)
        left -= len(archs)
    return np.concatenate(told)


@dataclass(frozen=True, eq=False)
class _TableLookup:
    """Looks up the values of architectures in a complete table; for use inside jit."""

    weights: Int[np.ndarray, " genes"]
    codes: Int[np.ndarray, " rows"]
    values: Float[np.ndarray, "rows columns"]

    @classmethod
    def of(cls, archs: Population, values: Float[np.ndarray, "rows columns"]) -> "_TableLookup | None":
        """None where the genes have too many combinations of options for 32 bits."""
        counts = archs.max(0) + 1
        weights = np.cumprod([1, *counts[:0:-1].astype(np.int64)])[::-1]
        if weights[0] * int(counts[0]) >= 2**31:
            return None
        codes = archs @ weights
        order = np.argsort(codes)
        return cls(weights.astype(np.int32), np.asarray(codes)[order].astype(np.int32), values[order].astype(np.float32))

    def __call__(self, archs: Population) -> Float[Array, "pop columns"]:
        codes = (jnp.asarray(archs) * self.weights[None]).sum(1)
        return jnp.asarray(self.values)[jnp.searchsorted(jnp.asarray(self.codes), codes)]
