"""Base class of the genetic algorithms: (mu + lambda) selection of survivors, kept in order from best to worst.

An algorithm defines the order of survival (`_survival_keys`) and may replace the binary tournament (`_select_parents`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.draws import whole_numbers
from nasjax.algorithms.variation import initial_population, offspring
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated_sort, penalised
from nasjax.sorting import falses_first, lexsort, narrow
from nasjax.space import SearchSpace, repeats, row_hashes
from nasjax.types import Objectives, Population, PRNGKey, Violations


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GeneticState:
    """The survivors, best first.

    Objectives are penalised where constraints are broken, and NaN before the first `tell`.
    """

    space: SearchSpace = field(metadata={"static": True})
    key: PRNGKey
    step: Int[Array, ""]
    archs: Int[Array, "pop genes"]
    objectives: Float[Array, "pop obj"]


@dataclass(frozen=True)
class Genetic(ABC):
    """Settings of all genetic algorithms.

    `population` is the number of architectures in a generation, `crossover` the share of children with two parents,
    `mutation` the probability that a gene mutates (None: one gene per child on average). Raises ConfigError for invalid
    settings.
    """

    population: int = 50
    crossover: float = 0.9
    mutation: float | None = None

    def __post_init__(self):
        if self.population < 2:
            raise ConfigError(f"algorithm.population must be at least 2, not {self.population}")
        for name in ("crossover", "mutation"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ConfigError(f"algorithm.{name} must be from 0 to 1, not {getattr(self, name)}")

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> GeneticState:
        """The initial state; the first `ask` returns the distinct rows of `start`, topped up with random architectures.

        `objectives` is the number of objectives.
        """
        draw, key = jax.random.split(key)
        archs = initial_population(draw, space, start, self.population)
        unknown = jnp.full((self.population, objectives), jnp.nan, jnp.float32)
        return GeneticState(space, key, jnp.zeros((), jnp.int32), archs, unknown)

    @partial(jax.jit, static_argnums=0)
    def ask(self, state: GeneticState) -> tuple[Int[Array, "pop genes"], GeneticState]:
        """The next architectures to evaluate: canonical, distinct, and no survivors if the space is large enough."""

        def children() -> Int[Array, "pop genes"]:
            keys = jax.random.split(jax.random.fold_in(state.key, state.step), 6)
            parents = self._select_parents(state, keys[0])
            return offspring(state.space, keys[1:], parents, state.archs, self.crossover, self.mutation)

        archs = lax.cond(state.step == 0, lambda: state.archs, children)
        return archs, replace(state, step=state.step + 1)

    @partial(jax.jit, static_argnums=0)
    def tell(
        self,
        state: GeneticState,
        archs: Population,
        objectives: Objectives,
        violations: Violations | None = None,
    ) -> GeneticState:
        """The best of the survivors and any number of evaluated architectures; repeated, then failed rows come last."""
        archs = jnp.concatenate([state.archs, state.space.canonical(archs)])
        new = penalised(jnp.asarray(objectives, state.objectives.dtype), violations)
        values = jnp.concatenate([state.objectives, new])
        failed = jnp.isnan(values).any(axis=1)
        # Failed rows move to the end first, so that of two equal architectures the one with values is kept.
        order = falses_first(failed)
        repeated, values, failed = repeats(row_hashes(archs)[order]), values[order], failed[order]
        ranks = narrow(non_dominated_sort(values, ~repeated, enough=self.population), len(values))
        keys = self._survival_keys(jax.random.fold_in(state.key, -state.step), values, ranks)
        best = lexsort((*keys, repeated, failed))[: self.population]
        return replace(state, archs=archs[order[best]], objectives=values[best])

    @abstractmethod
    def _survival_keys(
        self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]
    ) -> tuple[Float[Array, " all"] | Int[Array, " all"] | Bool[Array, " all"], ...]:
        """Sort keys of survival, the most significant last (`lexsort`); invalid rows have the number of rows as rank."""

    def _select_parents(self, state: GeneticState, key: PRNGKey) -> tuple[Int[Array, "pop genes"], Int[Array, "pop genes"]]:
        """Parents by binary tournament: survivors are ordered from best to worst, so the smaller index wins."""
        one, other = state.archs[whole_numbers(key, (2, 2, self.population), len(state.archs)).min(axis=0)]
        return one, other
