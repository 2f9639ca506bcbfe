"""Variation operators for categorical genes, shared by the genetic algorithms: crossover, mutation, removal of repeats.

Real-coded operators with rounding rarely change a gene of three options. Here each gene of a child comes from either parent,
and some genes change to another option.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from nasjax.algorithms.draws import uniform_rows
from nasjax.sorting import falses_first
from nasjax.space import SearchSpace, duplicates, repeats, row_hashes
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
    children = space.canonical(_mutate(space, change, raw, rate, jnp.arange(len(raw), dtype=jnp.int32)))
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
    number, (again, fresh) = len(children), keys
    # Of the first mutant of a repeat, of the second, and, beside the first's, of a pool.
    rates = 3 * rate, 0.4, 0.5
    folds = jnp.array([int(64 * by) for by in rates], jnp.int32)

    def mutants(which: Int[Array, ""], rows: Int[Array, " rows"]) -> Int[Array, "rows genes"]:
        by = jnp.array(rates, jnp.float32)[which]
        return jnp.asarray(space.canonical(_mutate(space, jax.random.fold_in(again, folds[which]), raw, by, rows)))

    hashes = row_hashes(known)

    def is_repeated(archs: Population) -> Bool[Array, " number"]:
        return jnp.asarray(repeats(jnp.concatenate([hashes, row_hashes(archs)])))[len(known) :]

    State = tuple[Int[Array, ""], Int[Array, "number genes"], Bool[Array, " number"]]

    def change(state: State) -> State:
        """A mutant for each repeat, an eighth of the rows at a time: few are repeats."""
        turn, archs, repeated = state
        order, size = falses_first(~repeated), -(-number // 8)

        def part(index: Int[Array, ""], archs: Int[Array, "number genes"]) -> Int[Array, "number genes"]:
            rows = order.at[index * size + jnp.arange(size, dtype=jnp.int32)].get(mode="clip")
            places = jnp.where(repeated[rows], rows, number)
            return archs.at[places].set(mutants(turn, rows % len(raw)), mode="drop")

        archs = lax.fori_loop(0, -(-repeated.sum(dtype=jnp.int32) // size), part, archs)
        return turn + 1, archs, is_repeated(archs)

    state = jnp.zeros((), jnp.int32), jnp.asarray(children), is_repeated(children)
    if not _is_small(space, number):
        # Usually one mutant for each repeat is enough, or a second, which is cheaper than sorting a pool of candidates.
        state = lax.while_loop(lambda state: (state[0] < 2) & state[2].any(), change, state)
    _, archs, repeated = state

    def pool() -> Int[Array, "number genes"]:
        whole = jnp.arange(len(raw), dtype=jnp.int32)
        spare = [*lax.map(lambda which: mutants(which, whole), jnp.array([0, 2], jnp.int32))]
        if _is_small(space, number):
            spare.append(jax.random.permutation(fresh, jnp.asarray(space.all_architectures())))
        return _first_distinct(jnp.concatenate([known, archs, *spare]), len(known), number)

    return lax.cond(repeated.any(), pool, lambda: archs)


def _crossover(space: SearchSpace, key: PRNGKey, one: Population, other: Population, rate: float) -> Int[Array, "pop genes"]:
    """With probability `rate` a row of `one` takes half of its genes from `other`; half of these move only part of the way.

    With two or three options, part of the way usually is all of it; with many, this finds options between the parents'.
    """
    pair, gene = jax.random.split(key)
    rows = jnp.arange(len(one), dtype=jnp.int32)
    draw = uniform_rows(gene, rows, one.shape)
    taken = (uniform_rows(pair, rows, (len(one), 1)) < rate) & (draw < 0.5)
    ordered = jnp.broadcast_to(jnp.array([gene.ordered for gene in space.genes]), one.shape)
    share = jnp.where(ordered, jnp.minimum(4 * draw, 1), 1)
    gap = other - one
    part = jnp.ceil(share * jnp.abs(gap).astype(jnp.float32)).astype(jnp.int32) * jnp.sign(gap)
    return jnp.where(taken, one + part, one)


def _mutate(
    space: SearchSpace, key: PRNGKey, raw: Population, rate: float | Float[Array, ""], rows: Int[Array, " rows"]
) -> Int[Array, "rows genes"]:
    """Mutants of some rows of `raw`, each the same whatever the other rows.

    Each gene changes with probability `rate`: ordered genes by a step of log-uniform size, others to any other option.

    Steps of all sizes work for genes with few and with many options. Steps beyond the ends are clipped, as the extremes of a
    front lie there.
    """
    near, far = jax.random.split(key)
    whole, raw = raw.shape, jnp.asarray(raw)[rows]
    counts = jnp.broadcast_to(jnp.array(space.counts, jnp.int32), raw.shape)
    # One random number per gene decides whether it mutates, and if so, in which direction and how far.
    draw = uniform_rows(near, rows, whole, low=-1.0) / rate
    size = jnp.exp(jnp.abs(draw) * jnp.log(counts.astype(jnp.float32)))
    size = jnp.minimum(size, counts.astype(jnp.float32)).astype(jnp.int32)
    up = (raw == 0) | ((draw > 0) & (raw < counts - 1))
    changed = jnp.clip(raw + jnp.where(up, size, -size), 0, counts - 1)
    if not all(gene.ordered for gene in space.genes):
        ordered = jnp.broadcast_to(jnp.array([gene.ordered for gene in space.genes]), raw.shape)
        limits = jnp.broadcast_to(jnp.maximum(jnp.array(space.counts, jnp.int32), 2), whole)
        other = raw + jax.random.randint(far, whole, 1, limits)[rows]
        changed = jnp.where(ordered, changed, other % counts)
    return jnp.where(jnp.abs(draw) < 1, changed, raw)


def _is_small(space: SearchSpace, number: int) -> bool:
    """Whether the space is so small that distinct architectures are better taken from the list of all than sampled."""
    return space.size <= 8 * number and math.prod(space.counts) <= 2**16


def _first_distinct(archs: Population, known: int, number: int) -> Int[Array, "number genes"]:
    """The first `number` distinct rows after the `known` ones; repeated rows only if there are not enough."""
    repeated = duplicates(archs)[known:]
    return jnp.resize(archs[known:][falses_first(repeated)], (number, archs.shape[1]))
