"""NSGA-II (Deb et al. 2002) with operators for categorical genes, on the device from the first generation to the last.

Real-coded crossover and mutation with rounding hardly ever change a gene of three options; here a child takes each gene from
either parent and some genes are given another option. A plain (mu + lambda) genetic algorithm for one objective.
"""

import math
from dataclasses import dataclass, field, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nasjax.pareto import crowding_distance, non_dominated_sort, penalised
from nasjax.space import SearchSpace, duplicates
from nasjax.types import Objectives, Population, PRNGKey, Violations


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NSGA2State:
    """The survivors, best first (by front, then by crowding distance).

    Objectives are penalised where constraints are broken, and NaN before the first `tell`.
    """

    space: SearchSpace = field(metadata={"static": True})
    key: PRNGKey
    step: Int[Array, ""]
    archs: Int[Array, "pop genes"]
    objectives: Float[Array, "pop obj"]


@dataclass(frozen=True)
class NSGA2:
    """`crossover` is the share of children with two parents; `mutation` the rate a gene (None: one gene a child)."""

    population: int = 50
    crossover: float = 0.9
    mutation: float | None = None

    def __post_init__(self):
        if self.population < 2:
            raise ValueError(f"algorithm.population must be at least 2, not {self.population}")
        for name in ("crossover", "mutation"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ValueError(f"algorithm.{name} must be from 0 to 1, not {getattr(self, name)}")

    @partial(jax.jit, static_argnums=(0, 2, 4))
    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> NSGA2State:
        """The state whose first `ask` is `start`'s first distinct rows, topped up with samples; `objectives`: how many."""
        draw, key = jax.random.split(key)
        archs: Population = space.sample(draw, 2 * self.population)
        if _small(space, self.population):
            archs = jax.random.permutation(draw, jnp.asarray(space.everything()))
        if start is not None:
            archs = jnp.concatenate([space.canonical(start), archs])
        archs = _distinct(archs, 0, self.population)
        unknown = jnp.full((self.population, objectives), jnp.nan, jnp.float32)
        return NSGA2State(space, key, jnp.zeros((), jnp.int32), archs, unknown)

    @partial(jax.jit, static_argnums=0)
    def ask(self, state: NSGA2State) -> tuple[Int[Array, "pop genes"], NSGA2State]:
        """The architectures to be scored next: canonical, distinct, none of them a survivor where the space has enough."""
        archs = lax.cond(state.step == 0, lambda: state.archs, lambda: self._children(state))
        return archs, replace(state, step=state.step + 1)

    @partial(jax.jit, static_argnums=0)
    def tell(
        self,
        state: NSGA2State,
        archs: Population,
        objectives: Objectives,
        violations: Violations | None = None,
    ) -> NSGA2State:
        """The best of the survivors and `archs` (any number): by front, then crowding; duplicates, then NaN, last."""
        archs = jnp.concatenate([state.archs, state.space.canonical(archs)])
        told = penalised(jnp.asarray(objectives, state.objectives.dtype), violations)
        values = jnp.concatenate([state.objectives, told])
        failed = jnp.isnan(values).any(axis=1)
        # Failed rows go last first, so that of two equal rows the one with a value is kept.
        order = jnp.argsort(failed)
        archs, values, failed = archs[order], values[order], failed[order]
        ranks = non_dominated_sort(values, ~duplicates(archs))
        best = jnp.lexsort((-crowding_distance(values, ranks), ranks, failed))[: self.population]
        return replace(state, archs=archs[best], objectives=values[best])

    def _children(self, state: NSGA2State) -> Int[Array, "pop genes"]:
        space, number = state.space, self.population
        several = sum(count > 1 for count in space.counts)
        rate = 1 / max(several, 1) if self.mutation is None else self.mutation
        mate, cross, wake, change, again, fresh = jax.random.split(jax.random.fold_in(state.key, state.step), 6)

        # Survivors stand best first: the smaller index wins a binary tournament.
        one, other = state.archs[jax.random.randint(mate, (2, 2, number), 0, len(state.archs)).min(axis=0)]
        one_on, other_on = space.active(one), space.active(other)
        # A gene that a parent lacks comes from the other one, or from chance where both lack it.
        raw = space.awaken(wake, one)
        first = jnp.where(one_on | ~other_on, raw, other)
        second = jnp.where(other_on, other, raw)
        raw = _cross(space, cross, first, second, self.crossover)
        children = space.canonical(_mutate(space, change, raw, rate))

        def refill() -> Int[Array, "pop genes"]:
            closer, wider = jax.random.split(again)
            spare = [_mutate(space, closer, raw, 3 * rate), _mutate(space, wider, raw, 0.5)]
            if _small(space, number):
                spare.append(jax.random.permutation(fresh, space.everything()))
            pool = jnp.concatenate([state.archs, children, space.canonical(jnp.concatenate(spare))])
            return _distinct(pool, len(state.archs), number)

        repeated = duplicates(jnp.concatenate([state.archs, children]))[len(state.archs) :]
        return lax.cond(repeated.any(), refill, lambda: children)


def _cross(space: SearchSpace, key: PRNGKey, one: Population, other: Population, rate: float) -> Int[Array, "pop genes"]:
    """With probability `rate` a row of `one` takes half of its genes from `other`, every second of them part of the way.

    A part of the way between two or three options is mostly the whole of it; between many it finds what lies in the middle.
    """
    pair, gene = jax.random.split(key)
    draw = jax.random.uniform(gene, one.shape)
    taken = jax.random.bernoulli(pair, rate, (len(one), 1)) & (draw < 0.5)
    ordered = jnp.broadcast_to(jnp.array([gene.ordered for gene in space.genes]), one.shape)
    share = jnp.where(ordered, jnp.minimum(4 * draw, 1), 1)
    gap = other - one
    part = jnp.ceil(share * jnp.abs(gap).astype(jnp.float32)).astype(jnp.int32) * jnp.sign(gap)
    return jnp.where(taken, one + part, one)


def _mutate(space: SearchSpace, key: PRNGKey, raw: Population, rate: float) -> Int[Array, "pop genes"]:
    """Each gene is changed with probability `rate`: a number up or down by steps of log-uniform size, else to any option.

    Steps of all sizes cost genes of two or three options nothing and find their way along genes of many; what overshoots
    stops at the end of the scale, where the extremes of a front are.
    """
    near, far = jax.random.split(key)
    counts = jnp.broadcast_to(jnp.array(space.counts, jnp.int32), raw.shape)
    # One draw says whether a gene is hit, and, where it is, which way and how far.
    draw = jax.random.uniform(near, raw.shape, minval=-1.0) / rate
    size = jnp.exp(jnp.abs(draw) * jnp.log(counts.astype(jnp.float32)))
    size = jnp.minimum(size, counts.astype(jnp.float32)).astype(jnp.int32)
    up = (raw == 0) | ((draw > 0) & (raw < counts - 1))
    changed = jnp.clip(raw + jnp.where(up, size, -size), 0, counts - 1)
    if not all(gene.ordered for gene in space.genes):
        ordered = jnp.broadcast_to(jnp.array([gene.ordered for gene in space.genes]), raw.shape)
        other = raw + jax.random.randint(far, raw.shape, 1, jnp.maximum(counts, 2))
        changed = jnp.where(ordered, changed, other % counts)
    return jnp.where(jnp.abs(draw) < 1, changed, raw)


def _small(space: SearchSpace, number: int) -> bool:
    """Whether architectures are so few that `number` distinct ones are better taken from the list of all than drawn."""
    return space.size <= 8 * number and math.prod(space.counts) <= 2**16


def _distinct(archs: Population, known: int, number: int) -> Int[Array, "number genes"]:
    """The first `number` rows after `known` rows that repeat nothing above them; repeated ones only where these run out."""
    repeated = duplicates(archs)[known:]
    return jnp.resize(archs[known:][jnp.argsort(repeated)], (number, archs.shape[1]))
