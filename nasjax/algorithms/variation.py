"""Variation operators for categorical genes, shared by the genetic algorithms: crossover, mutation, removal of repeats.

Real-coded operators with rounding rarely change a gene of three options. Here each gene of a child comes from either parent,
and some genes change to another option.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, Key

from nasjax.space import SearchSpace, duplicates
from nasjax.types import Population, PRNGKey


def initial_population(
    key: PRNGKey, space: SearchSpace, start: Population | None, number: int
) -> Int[Array, "number genes"]:
    """The first distinct rows of `start`, topped up with random architectures (in a small space, from the list of all)."""
    archs: Population = space.sample(key, 2 * number)
    if _is_small(space, number):
        archs = jax.random.permutation(key, jnp.asarray(space.all_architectures()))
    if start is not None:
        archs = jnp.concatenate([space.canonical(start), archs])
    return _first_distinct(archs, 0, number)


def mutation_rate(space: SearchSpace, rate: float | None) -> float:
    """The mutation probability per gene; by default one over the number of genes that have a choice."""
    return 1 / max(sum(count > 1 for count in space.counts), 1) if rate is None else rate


def offspring(
    space: SearchSpace,
    keys: Key[Array, "5"],
    parents: tuple[Int[Array, "number genes"], Int[Array, "number genes"]],
    known: Int[Array, "pop genes"],
    crossover: float,
    mutation: float | None,
) -> Int[Array, "number genes"]:
    """A child of each pair of `parents`: canonical, distinct, and none of the `known` rows if the space is large enough."""
    rate = mutation_rate(space, mutation)
    cross, wake, change, again, fresh = keys
    one, other = parents
    one_on, other_on = space.active(one), space.active(other)
    # A gene that is inactive in one parent comes from the other; if inactive in both, it is random.
    raw = space.fill_inactive(wake, one)
    near = jnp.where(one_on | ~other_on, raw, other)
    far = jnp.where(other_on, other, raw)
    raw = _crossover(space, cross, near, far, crossover)
    children = space.canonical(_mutate(space, change, raw, rate))
    return replace_repeated(space, (again, fresh), children, raw, known, rate)


def replace_repeated(
    space: SearchSpace,
    keys: tuple[PRNGKey, PRNGKey],
    children: Population,
    raw: Int[Array, "spare genes"],
    known: Int[Array, "pop genes"],
    rate: float,
) -> Int[Array, "number genes"]:
    """Replaces children that repeat an earlier child or a `known` row with mutants of `raw`.

    Mutants first differ in a few genes, then in many.
    """
    number, small = len(children), _is_small(space, len(children))
    again, fresh = keys

    def mutants(by: float) -> Int[Array, "spare genes"]:
        return jnp.asarray(space.canonical(_mutate(space, jax.random.fold_in(again, int(64 * by)), raw, by)))

    def without_repeats(archs: Population, rates: tuple[float, ...]) -> Int[Array, "number genes"]:
        repeated = duplicates(jnp.concatenate([known, archs]))[len(known) :]

        def change() -> Int[Array, "number genes"]:
            # Usually one mutant for each repeat is enough, which is cheaper than sorting a pool of candidates.
            if rates and not small:
                return without_repeats(
                    jnp.where(repeated[:, None], jnp.resize(mutants(rates[0]), archs.shape), archs), rates[1:]
                )
            spare = [mutants(3 * rate), mutants(0.5)]
            if small:
                spare.append(jax.random.permutation(fresh, jnp.asarray(space.all_architectures())))
            return _first_distinct(jnp.concatenate([known, archs, *spare]), len(known), number)

        return lax.cond(repeated.any(), change, lambda: jnp.asarray(archs))

    return without_repeats(children, (3 * rate, 0.4))


def _crossover(space: SearchSpace, key: PRNGKey, one: Population, other: Population, rate: float) -> Int[Array, "pop genes"]:
    """With probability `rate` a row of `one` takes half of its genes from `other`; half of these move only part of the way.

    With two or three options, part of the way usually is all of it; with many, this finds options between the parents'.
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
    """Changes each gene with probability `rate`: ordered genes by a step of log-uniform size, others to any other option.

    Steps of all sizes work for genes with few and with many options. Steps beyond the ends are clipped, as the extremes of a
    front lie there.
    """
    near, far = jax.random.split(key)
    counts = jnp.broadcast_to(jnp.array(space.counts, jnp.int32), raw.shape)
    # One random number per gene decides whether it mutates, and if so, in which direction and how far.
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


def _is_small(space: SearchSpace, number: int) -> bool:
    """Whether the space is so small that distinct architectures are better taken from the list of all than sampled."""
    return space.size <= 8 * number and math.prod(space.counts) <= 2**16


def _first_distinct(archs: Population, known: int, number: int) -> Int[Array, "number genes"]:
    """The first `number` distinct rows after the `known` ones; repeated rows only if there are not enough."""
    repeated = duplicates(archs)[known:]
    return jnp.resize(archs[known:][jnp.argsort(repeated)], (number, archs.shape[1]))
