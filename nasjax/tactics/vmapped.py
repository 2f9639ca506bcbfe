"""Searches with many seeds at once: random, full and concurrent search as one scan, vmapped over PRNG keys.

The measured function must run inside jit. Each seed measures what the tactic measures alone with the same key, except for
near ties of predictions, since batched fits round differently.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from nasjax.algorithms import Algorithm
from nasjax.pareto import violations
from nasjax.sorting import falses_first
from nasjax.space import duplicates
from nasjax.tactics.base import MAX_COMBINATIONS, Problem, Tactic, Values
from nasjax.tactics.concurrent import Concurrent
from nasjax.tactics.full import Full
from nasjax.tactics.predicting import Models, fit_columns
from nasjax.tactics.random import Random
from nasjax.types import Population, PRNGKey

Measure = Callable[[Population], Values]
"""The values of all columns of a population, computed inside jit."""


class _SeedState(NamedTuple):
    """State of one seed's search: measurements padded with NaN, and the algorithm's state if the tactic has one."""

    key: PRNGKey
    step: Int[Array, ""]
    archs: Int[Array, "capacity genes"]
    values: Float[Array, "capacity columns"]
    inner: Any


def can_be_vmapped(tactic: Tactic, problem: Problem) -> bool:
    """Whether `run_seeds` can search a problem by a tactic: random, full or concurrent search of a whole space.

    The space has as many architectures as are measured, and there are no warm start and no proxies. Concurrent search has a
    predictor that is fitted inside jit.
    """
    fits_inside = not isinstance(tactic, Concurrent) or hasattr(type(problem.predictor).fit, "lower")
    whole = problem.rows is None and problem.evaluations <= problem.space.size
    return type(tactic) in _TACTIC_FUNCTIONS and fits_inside and whole and problem.warm is None and problem.scores is None


def run_seeds(
    tactic: Tactic, problem: Problem, measure: Measure, keys: Key[Array, " seeds"]
) -> tuple[Int[Array, "seeds evaluations genes"], Float[Array, "seeds evaluations columns"]]:
    """The architectures that each seed's search measures, in order, and their values; `keys` has one key per seed.

    Only where `can_be_vmapped`.
    """
    archs, values = _run_vmapped(tactic, problem, measure, keys)
    return archs[:, : problem.evaluations], values[:, : problem.evaluations]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run_vmapped(tactic: Any, problem: Problem, measure: Measure, keys: Key[Array, " seeds"]) -> tuple[Population, Values]:
    """All searches as one vmapped scan over steps."""
    population, (begin, ask, tell) = tactic.population, _TACTIC_FUNCTIONS[type(tactic)]
    steps = -(-problem.evaluations // population)
    capacity = 1 << (steps * population - 1).bit_length()
    genes, columns = len(problem.space.genes), len(problem.costs)

    def step(state: _SeedState, _: None) -> tuple[_SeedState, None]:
        proposals, inner = ask(tactic, problem, state)
        archs = _first_unmeasured(problem, state, proposals, population)
        values = measure(archs)
        place = (state.step * population, jnp.zeros((), jnp.int32))
        known = state._replace(
            step=state.step + 1,
            archs=lax.dynamic_update_slice(state.archs, archs, place),
            values=lax.dynamic_update_slice(state.values, values, place),
        )
        return known._replace(inner=tell(tactic, problem, inner, archs, values)), None

    def search(key: PRNGKey) -> tuple[Population, Values]:
        key, inner = begin(tactic, problem, key)
        unknown = jnp.full((capacity, columns), jnp.nan, jnp.float32)
        state = _SeedState(key, jnp.zeros((), jnp.int32), jnp.zeros((capacity, genes), jnp.int32), unknown, inner)
        state, _ = lax.scan(step, state, length=steps)
        return state.archs, state.values

    return jax.vmap(search)(keys)


def _first_unmeasured(problem: Problem, state: _SeedState, proposals: Population, number: int) -> Int[Array, "number genes"]:
    """As `base.unmeasured`, inside jit."""
    space, key = problem.space, jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
    rate = 1.5 / len(space.genes)
    steps = [jax.random.fold_in(key, i) for i in range(17)]
    pool = [proposals, *(space.mutate(step, proposals, rate) for step in steps[:8])]
    pool += [space.sample(step, 2 * number) for step in steps[8:16]]
    if space.size <= 4 * problem.evaluations and math.prod(space.counts) <= MAX_COMBINATIONS:
        pool.append(jax.random.permutation(steps[16], jnp.asarray(space.all_architectures())))
    # Padding rows must not equal any architecture.
    measured = (jnp.arange(len(state.archs), dtype=jnp.int32) < state.step * number)[:, None]
    known = jnp.where(measured, state.archs, -1)
    offered = jnp.concatenate(pool).astype(jnp.int32)
    seen = duplicates(jnp.concatenate([known, offered]))[len(known) :]
    return offered[falses_first(seen)[:number]]


# -- init, ask and tell of each tactic -------------------------------------------------------------------------------------


def _init_stateless(tactic: Any, problem: Problem, key: PRNGKey) -> tuple[PRNGKey, Any]:
    """Tactics without an algorithm keep no further state."""
    return key, ()


def _tell_stateless(tactic: Any, problem: Problem, inner: Any, archs: Population, values: Values) -> Any:
    return inner


def _ask_random(tactic: Random, problem: Problem, state: _SeedState) -> tuple[Population, Any]:
    return problem.space.sample(jax.random.fold_in(state.key, state.step), tactic.population), state.inner


def _ask_concurrent(tactic: Concurrent, problem: Problem, state: _SeedState) -> tuple[Population, Any]:
    """As `Concurrent.ask`; the first population is random."""
    key = jax.random.fold_in(state.key, state.step)
    drawn = problem.space.sample(key, tactic.population)

    def search() -> Population:
        columns = fit_columns(problem, state.archs, state.values, jnp.isfinite(state.values).all(1))
        found = tactic.proposals(problem, Models(columns, None), key, state.archs, state.values)
        return jnp.resize(found, (max(len(found), tactic.population), found.shape[1]))

    # The first population is random, in the shape of the later ones.
    begun = jnp.resize(drawn, jax.eval_shape(search).shape)
    return lax.cond(state.step == 0, lambda: begun, search), state.inner


def _init_full(tactic: Full, problem: Problem, key: PRNGKey) -> tuple[PRNGKey, Any]:
    inner = _resized_algorithm(tactic, problem).init(jax.random.fold_in(key, 0), problem.space, None, len(problem.reference))
    return jax.random.fold_in(key, 1), inner


def _ask_full(tactic: Full, problem: Problem, state: _SeedState) -> tuple[Population, Any]:
    return _resized_algorithm(tactic, problem).ask(state.inner)


def _tell_full(tactic: Full, problem: Problem, inner: Any, archs: Population, values: Values) -> Any:
    goals = values[:, : len(problem.reference)]
    return _resized_algorithm(tactic, problem).tell(inner, archs, goals, violations(values, problem.limits))


def _resized_algorithm(tactic: Full, problem: Problem) -> Algorithm:
    return replace(problem.algorithm, population=tactic.population)  # type: ignore[type-var]


_TACTIC_FUNCTIONS: dict[type, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    Random: (_init_stateless, _ask_random, _tell_stateless),
    Full: (_init_full, _ask_full, _tell_full),
    Concurrent: (_init_stateless, _ask_concurrent, _tell_stateless),
}
