"""One search of a table for each of many seeds, in one vmapped program: ablations on the accelerator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.algorithms import ALGORITHMS, Algorithm
from nasjax.errors import ConfigError
from nasjax.jax_defaults import with_jax_defaults
from nasjax.objectives import Goals, parse_goals
from nasjax.pareto import hypervolumes
from nasjax.predictors import PREDICTORS, Predictor
from nasjax.program_cache import cache_programs
from nasjax.registry import settings
from nasjax.runs.folder import check_seed
from nasjax.searches.problem import search_problem
from nasjax.searches.tactic_problem import tactic_problem
from nasjax.supernets.tabular import TabularNet
from nasjax.tactics import TACTICS, Tactic
from nasjax.tactics.vmapped import run_seeds
from nasjax.types import Population


@dataclass(frozen=True, eq=False)
class Runs:
    """One search a seed: the architectures in the order they were evaluated, and the values of the goals, minimised."""

    goals: Goals
    archs: Int[np.ndarray, "seeds evaluations genes"]
    values: Float[np.ndarray, "seeds evaluations columns"]

    @cached_property
    def hypervolumes(self) -> Float[np.ndarray, "seeds evaluations"]:
        """The hypervolume of each seed's front after every evaluation; reference point and constraints as in a search."""
        return np.array([hypervolumes(self.goals.feasible(values), self.goals.reference) for values in self.values])


@with_jax_defaults
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
) -> Runs:
    """Searches a complete table once for every seed, in one vmapped program.

    Each search evaluates what `search` evaluates with that seed, near ties apart. Arguments are those of `search`, with
    another default predictor. Tactics: `random`, `full`, `concurrent`; predictors: those that are fitted inside jit.
    Raises ConfigError for others, and for a table that lacks architectures or has failed networks.
    """
    if not isinstance(net, TabularNet):
        raise ConfigError("search_seeds needs a table (supernet=tabular): other super-networks are not measured inside jit")
    if not len(seeds):
        raise ConfigError("seeds must name at least one seed")
    for seed in seeds:
        check_seed(seed)
    cache_programs()
    problem = search_problem(net, None)
    goals = parse_goals(objectives, constraints, problem.measurable, references or {}, problem.space)
    for_tactic = tactic_problem(
        problem,
        goals,
        settings("algorithm", ALGORITHMS, algorithm),
        settings("predictor", PREDICTORS, predictor),
        evaluations,
    )
    genes = problem.bounded_genes(goals)

    def values_of(archs: Population) -> Float[np.ndarray, "rows columns"]:
        return goals.minimised(net(archs) | {name: gene.exact(archs) for name, gene in genes.items()})

    columns = values_of(net.archs)
    if net.rows() is not None or np.isnan(columns).any():
        raise ConfigError(f"search_seeds needs a complete table without failed networks, which {net.name} is not")
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    evaluated, _ = run_seeds(settings("tactic", TACTICS, tactic), for_tactic, _TableLookup(net.archs, columns), keys)
    archs = np.asarray(evaluated)
    values = values_of(archs.reshape(-1, archs.shape[2]))
    return Runs(goals, archs, values.reshape(*archs.shape[:2], -1))


class _TableLookup:
    """Looks up the values of architectures in a complete table; for use inside jit."""

    def __init__(self, archs: Population, values: Float[np.ndarray, "rows columns"]):
        counts = archs.max(0) + 1
        self._weights = np.cumprod([1, *counts[:0:-1].astype(np.int64)])[::-1]
        if self._weights[0] * int(counts[0]) >= 2**31:
            raise ConfigError("the table has too many combinations of options for search_seeds (2^31 or more)")
        codes = archs @ self._weights
        order = np.argsort(codes)
        self._codes, self._values = codes[order].astype(np.int32), values[order].astype(np.float32)
        self._weights = self._weights.astype(np.int32)

    def __call__(self, archs: Population) -> Float[Array, "pop columns"]:
        codes = (jnp.asarray(archs) * self._weights[None]).sum(1)
        return jnp.asarray(self._values)[jnp.searchsorted(jnp.asarray(self._codes), codes)]
