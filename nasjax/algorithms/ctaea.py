"""C-TAEA (Li, Chen, Fu and Yao 2019): one archive converges within the constraints, one keeps diversity without them."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nasjax.algorithms.decomposition import PENALTY_THRESHOLD, chebyshev, directions, niches, normalised, positions_in_niche
from nasjax.algorithms.draws import whole_numbers
from nasjax.algorithms.genetic import Genetic, GeneticState
from nasjax.pareto import non_dominated, non_dominated_sort
from nasjax.sorting import falses_first, lexsort
from nasjax.space import SearchSpace, duplicates
from nasjax.types import Objectives, Population, PRNGKey, Violations


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CTAEAState(GeneticState):
    """`archs` and `objectives` are the convergence archive, `diverse*` the diversity archive, which ignores constraints."""

    diverse: Int[Array, "pop genes"]
    diverse_objectives: Float[Array, "pop obj"]


@dataclass(frozen=True)
class CTAEA(Genetic):
    """C-TAEA with `population` reference directions; parents come more often from the archive nearer to the front."""

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> CTAEAState:
        """As `Genetic.init`; both archives start with the same architectures."""
        state = super().init(key, space, start, objectives)
        return CTAEAState(space, state.key, state.step, state.archs, state.objectives, state.archs, state.objectives)

    @partial(jax.jit, static_argnums=0)
    def tell(  # type: ignore[override]
        self,
        state: CTAEAState,
        archs: Population,
        objectives: Objectives,
        violations: Violations | None = None,
    ) -> CTAEAState:
        """Updates both archives with any number of evaluated architectures."""
        updated = super().tell(state, archs, objectives, violations)
        archs = jnp.concatenate([state.diverse, state.space.canonical(archs)])
        values = jnp.concatenate([state.diverse_objectives, jnp.asarray(objectives, state.objectives.dtype)])
        failed = jnp.isnan(values).any(axis=1)
        order = falses_first(failed)
        archs, values, failed = archs[order], values[order], failed[order]
        repeated = duplicates(archs)
        ranks = non_dominated_sort(values, ~repeated)

        towards = directions(values.shape[1], self.population)
        scaled = normalised(values, ranks == 0)
        niche, _ = niches(jnp.nan_to_num(scaled), towards)
        score = jnp.take_along_axis(chebyshev(scaled, towards), niche[None], axis=0)[0]
        # Niches that the convergence archive already covers are filled last.
        front = jnp.concatenate([values, updated.objectives])
        among, _ = niches(jnp.nan_to_num(normalised(front, jnp.arange(len(front)) < len(values))[len(values) :]), towards)
        feasible = (updated.objectives < PENALTY_THRESHOLD).all(axis=1)
        held = jnp.zeros(len(towards), jnp.int32).at[among].add(feasible.astype(jnp.int32))
        level = held[niche] + positions_in_niche(niche, score, ranks)
        best = lexsort((ranks, level, repeated, failed))[: self.population]
        return replace(updated, diverse=archs[best], diverse_objectives=values[best])

    def _survival_keys(self, key: PRNGKey, values: Float[Array, "all obj"], ranks: Int[Array, " all"]):
        """Whole fronts, up to `population` rows, evenly over the niches; then infeasible rows by violation."""
        towards = directions(values.shape[1], self.population)
        scaled = normalised(values, ranks == 0)
        niche, _ = niches(jnp.nan_to_num(scaled), towards)
        score = jnp.take_along_axis(chebyshev(scaled, towards), niche[None], axis=0)[0]
        beyond = jnp.maximum(ranks - jnp.sort(ranks)[self.population - 1], 0)
        infeasible = jnp.where((values < PENALTY_THRESHOLD).all(axis=1), 0, values[:, 0])
        level = positions_in_niche(niche, score, beyond)
        return jax.random.uniform(key, ranks.shape), level, beyond, infeasible

    def _select_parents(  # type: ignore[override]
        self, state: CTAEAState, key: PRNGKey
    ) -> tuple[Int[Array, "pop genes"], Int[Array, "pop genes"]]:
        """Parents by binary tournament within an archive chosen by its share of the joint non-dominated front."""
        number = self.population
        both = jnp.concatenate([state.objectives, state.diverse_objectives])
        front = non_dominated(both)
        near, wide = front[:number].mean(), front[number:].mean()
        draw, which = jax.random.split(key)
        first = jnp.where(near > wide, 1.0, 0.0)
        chance = jnp.stack([first, near])[:, None]
        converging = jax.random.uniform(which, (2, number)) < chance
        contest = whole_numbers(draw, (2, 2, number), number).min(axis=0)
        one, other = jnp.where(converging[..., None], state.archs[contest], state.diverse[contest])
        return one, other
