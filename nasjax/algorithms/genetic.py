"""What the genetic algorithms share: survivors, best first, whose children compete with them (mu + lambda).

An algorithm says in which order rows survive (`_keys`) and, where it is not by a binary tournament, who mates (`_parents`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from nasjax.algorithms.variation import first, offspring
from nasjax.errors import ConfigError
from nasjax.pareto import non_dominated_sort, penalised
from nasjax.space import SearchSpace, duplicates
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
    """`crossover` is the share of children with two parents; `mutation` the rate a gene (None: one gene a child)."""

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
        """The state whose first `ask` is `start`'s first distinct rows, topped up with samples; `objectives`: how many."""
        draw, key = jax.random.split(key)
        archs = first(draw, space, start, self.population)
        unknown = jnp.full((self.population, objectives), jnp.nan, jnp.float32)
        return GeneticState(space, key, jnp.zeros((), jnp.int32), archs, unknown)

    @partial(jax.jit, static_argnums=0)
    def ask(self, state: GeneticState) -> tuple[Int[Array, "pop genes"], GeneticState]:
        """The architectures to be scored next: canonical, distinct, none of them a survivor where the space has enough."""

        def children() -> Int[Array, "pop genes"]:
            keys = jax.random.split(jax.random.fold_in(state.key, state.step), 6)
            parents = self._parents(state, keys[0])
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
        """The best of the survivors and `archs` (any number); duplicates, then NaN, last."""
        archs = jnp.concatenate([state.archs, state.space.canonical(archs)])
        told = penalised(jnp.asarray(objectives, state.objectives.dtype), violations)
        values = jnp.concatenate([state.objectives, told])
        failed = jnp.isnan(values).any(axis=1)
        # Failed rows go last first, so that of two equal rows the one with a value is kept.
        order = _failed_last(failed)
        archs, values, failed = archs[order], values[order], failed[order]
        repeated = duplicates(archs)
        ranks = non_dominated_sort(values, ~repeated)
        keys = self._keys(jax.random.fold_in(state.key, -state.step), values, ranks)
        best = jnp.lexsort((*keys, repeated.astype(jnp.int32) + 2 * failed.astype(jnp.int32)))[: self.population]
        return replace(state, archs=archs[best], objectives=values[best])

    @abstractmethod
    def _keys(
        self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]
    ) -> tuple[Float[Array, " all"] | Int[Array, " all"] | Bool[Array, " all"], ...]:
        """What survivors are sorted by, the last first (`jnp.lexsort`); `ranks` is `all` where a row does not count."""

    def _parents(self, state: GeneticState, key: PRNGKey) -> tuple[Int[Array, "pop genes"], Int[Array, "pop genes"]]:
        """Survivors stand best first: the smaller index wins a binary tournament."""
        shape = (2, 2, self.population)
        one, other = state.archs[jax.random.randint(key, shape, 0, len(state.archs)).min(axis=0)]
        return one, other


def _failed_last(failed: Bool[Array, " all"]) -> Int[Array, " all"]:
    """The order that puts failed rows last and changes nothing else: a sort of two values needs no comparisons."""
    kept = jnp.cumsum(~failed, dtype=jnp.int32)
    places = jnp.where(failed, kept[-1] + jnp.cumsum(failed, dtype=jnp.int32), kept) - 1
    return jnp.zeros(len(failed), jnp.int32).at[places].set(jnp.arange(len(failed), dtype=jnp.int32))
