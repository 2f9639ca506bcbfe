"""Variation of categorical genes, shared by the genetic algorithms: crossover, mutation, and children that repeat nothing.

Real-coded crossover and mutation with rounding hardly ever change a gene of three options; here a child takes each gene from
either parent and some genes are given another option.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key

from nasjax.space import SearchSpace, duplicates
from nasjax.types import Population, PRNGKey


def first(key: PRNGKey, space: SearchSpace, start: Population | None, number: int) -> Int[Array, "number genes"]:
    """`start`'s first distinct rows, topped up with samples (all there are, where they are few)."""
    archs: Population = space.sample(key, 2 * number)
    if _small(space, number):
        archs = jax.random.permutation(key, jnp.asarray(space.all_architectures()))
    if start is not None:
        archs = jnp.concatenate([space.canonical(start), archs])
    return _distinct(archs, 0, number)


def mutation_rate(space: SearchSpace, rate: float | None) -> float:
    """The rate a gene; one gene of those with a choice where none is given."""
    return 1 / max(sum(count > 1 for count in space.counts), 1) if rate is None else rate


def offspring(
    space: SearchSpace,
    keys: Key[Array, "5"],
    parents: tuple[Int[Array, "number genes"], Int[Array, "number genes"]],
    known: Int[Array, "pop genes"],
    crossover: float,
    mutation: float | None,
) -> Int[Array, "number genes"]:
    """A child of each pair of `parents`: canonical, distinct, none of them `known`, where the space has enough."""
    rate = mutation_rate(space, mutation)
    cross, wake, change, again, fresh = keys
    one, other = parents
    one_on, other_on = space.active(one), space.active(other)
    # A gene that a parent lacks comes from the other one, or from chance where both lack it.
    raw = space.fill_inactive(wake, one)
    near = jnp.where(one_on | ~other_on, raw, other)
    far = jnp.where(other_on, other, raw)
    raw = _cross(space, cross, near, far, crossover)
    children = space.canonical(_mutate(space, change, raw, rate))
    return refilled(space, (again, fresh), children, raw, known, rate)


def refilled(
    space: SearchSpace,
    keys: tuple[PRNGKey, PRNGKey],
    children: Population,
    raw: Int[Array, "spare genes"],
    known: Int[Array, "pop genes"],
    rate: float,
) -> Int[Array, "number genes"]:
    """`children`; those that repeat one above them or a `known` row give way to mutants of `raw`, by a few genes or many."""
    number, small = len(children), _small(space, len(children))
    again, fresh = keys

    def mutants(by: float) -> Int[Array, "spare genes"]:
        return jnp.asarray(space.canonical(_mutate(space, jax.random.fold_in(again, int(64 * by)), raw, by)))

    def settled(archs: Population, rates: tuple[float, ...]) -> Int[Array, "number genes"]:
        repeated = duplicates(jnp.concatenate([known, archs]))[len(known) :]

        def change() -> Int[Array, "number genes"]:
            # Mostly a mutant in place of each will do, which costs less than ordering a pool of all.
            if rates and not small:
                return settled(jnp.where(repeated[:, None], jnp.resize(mutants(rates[0]), archs.shape), archs), rates[1:])
            spare = [mutants(3 * rate), mutants(0.5)]
            if small:
                spare.append(jax.random.permutation(fresh, jnp.asarray(space.all_architectures())))
            return _distinct(jnp.concatenate([known, archs, *spare]), len(known), number)

        return lax.cond(repeated.any(), change, lambda: jnp.asarray(archs))

    return settled(children, (3 * rate, 0.4))


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
