"""Many seeds at once: random, full and concurrent search of a function that JAX computes, one scan vmapped over keys.

What each seed measures is what the tactic asks for by itself with the same key, but for near ties of predictions: many fits
at once round otherwise than one.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.pareto import penalised, violations
from nasjax.space import duplicates
from nasjax.tactics.base import ENUMERABLE, Problem, Tactic, Values
from nasjax.tactics.concurrent import Concurrent
from nasjax.tactics.full import Full
from nasjax.tactics.predicting import Models, best_first, fitted_columns, scored
from nasjax.tactics.random import Random
from nasjax.types import Population, PRNGKey

Measure = Callable[[Population], Values]
"""Values of every column of a population, inside jit."""


class _Told(NamedTuple):
    """What one seed's search has been told, padded with NaN, and the algorithm's state where the tactic has one."""

    key: PRNGKey
    step: Int[Array, ""]
    archs: Int[Array, "capacity genes"]
    values: Float[Array, "capacity columns"]
    inner: Any


def over_seeds(
    tactic: Tactic, problem: Problem, measure: Measure, keys: Any
) -> tuple[Int[Array, "seeds evaluations genes"], Float[Array, "seeds evaluations columns"]]:
    """What each seed's search measures, in order, and the values; `keys` has one key a seed.

    Raises ConfigError for tactics and predictors that do not run inside jit, and for a space that the budget exhausts.
    """
    if type(tactic) not in _STEPS:
        names = ", ".join(kind.__name__.lower() for kind in _STEPS)
        raise ConfigError(f"many seeds at once are for tactics {names}, not {type(tactic).__name__.lower()}")
    if isinstance(tactic, Concurrent) and not hasattr(type(problem.predictor).fit, "lower"):
        raise ConfigError(
            f"many seeds at once need a predictor that is fitted inside jit (ridge, gaussian_process, mlp), "
            f"not {type(problem.predictor).__name__.lower()}"
        )
    if problem.evaluations > problem.space.size:
        raise ConfigError(f"evaluations={problem.evaluations} are more than the {problem.space.size} networks of the space")
    archs, values = _all(tactic, problem, measure, keys)
    return archs[:, : problem.evaluations], values[:, : problem.evaluations]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _all(tactic: Any, problem: Problem, measure: Measure, keys: Any) -> tuple[Population, Values]:
    population, (begin, ask, tell) = tactic.population, _STEPS[type(tactic)]
    steps = -(-problem.evaluations // population)
    capacity = 1 << (steps * population - 1).bit_length()
    genes, columns = len(problem.space.genes), len(problem.costs)

    def step(told: _Told, _: None) -> tuple[_Told, None]:
        proposals, inner = ask(tactic, problem, told)
        archs = _fresh(problem, told, proposals, population)
        values = measure(archs)
        place = (told.step * population, jnp.zeros((), jnp.int32))
        known = told._replace(
            step=told.step + 1,
            archs=lax.dynamic_update_slice(told.archs, archs, place),
            values=lax.dynamic_update_slice(told.values, values, place),
        )
        return known._replace(inner=tell(tactic, problem, inner, archs, values)), None

    def search(key: PRNGKey) -> tuple[Population, Values]:
        key, inner = begin(tactic, problem, key)
        unknown = jnp.full((capacity, columns), jnp.nan, jnp.float32)
        told = _Told(key, jnp.zeros((), jnp.int32), jnp.zeros((capacity, genes), jnp.int32), unknown, inner)
        told, _ = lax.scan(step, told, length=steps)
        return told.archs, told.values

    return jax.vmap(search)(keys)


def _fresh(problem: Problem, told: _Told, proposals: Population, number: int) -> Int[Array, "number genes"]:
    """As `problem.fresh`: the first proposals not measured yet, then their mutants, then random architectures."""
    space, key = problem.space, jax.random.fold_in(jax.random.fold_in(told.key, told.step), 1)
    rate = 1.5 / len(space.genes)
    steps = [jax.random.fold_in(key, i) for i in range(17)]
    pool = [proposals, *(space.mutate(step, proposals, rate) for step in steps[:8])]
    pool += [space.sample(step, 2 * number) for step in steps[8:16]]
    if space.size <= 4 * problem.evaluations and math.prod(space.counts) <= ENUMERABLE:
        pool.append(jax.random.permutation(steps[16], jnp.asarray(space.all_architectures())))
    # What is only padding is no architecture.
    measured = (jnp.arange(len(told.archs), dtype=jnp.int32) < told.step * number)[:, None]
    known = jnp.where(measured, told.archs, -1)
    offered = jnp.concatenate(pool).astype(jnp.int32)
    seen = duplicates(jnp.concatenate([known, offered]))[len(known) :]
    return offered[jnp.argsort(seen, stable=True)[:number]]


# -- tactics: how each begins, what it proposes, and what it makes of the answer -------------------------------------------


def _no_algorithm(tactic: Any, problem: Problem, key: PRNGKey) -> tuple[PRNGKey, Any]:
    return key, ()


def _nothing(tactic: Any, problem: Problem, inner: Any, archs: Population, values: Values) -> Any:
    return inner


def _anywhere(tactic: Random, problem: Problem, told: _Told) -> tuple[Population, Any]:
    return problem.space.sample(jax.random.fold_in(told.key, told.step), tactic.population), told.inner


def _predicted_best(tactic: Concurrent, problem: Problem, told: _Told) -> tuple[Population, Any]:
    space, goals, population = problem.space, len(problem.reference), problem.algorithm.population
    key = jax.random.fold_in(told.key, told.step)
    drawn, score = space.sample(key, tactic.population), scored(problem)

    def search() -> Population:
        counts = jnp.isfinite(told.values).all(1)
        models = Models(fitted_columns(problem, told.archs, told.values, counts), None)
        order = best_first(penalised(told.values[:, :goals], violations(told.values, problem.limits)))
        start = told.archs[order[jnp.arange(population, dtype=jnp.int32) % counts.sum()]]
        inner = evolve(problem.algorithm, space, score, models, key, tactic.generations, start, goals)
        found = inner.archs[best_first(penalised(*score(models, inner.archs)))]
        return jnp.resize(found, (max(len(found), tactic.population), found.shape[1]))

    # One shape: the first population is drawn.
    begun = jnp.resize(drawn, jax.eval_shape(search).shape)
    return lax.cond(told.step == 0, lambda: begun, search), told.inner


def _begin_algorithm(tactic: Full, problem: Problem, key: PRNGKey) -> tuple[PRNGKey, Any]:
    inner = _of(tactic, problem).init(jax.random.fold_in(key, 0), problem.space, None, len(problem.reference))
    return jax.random.fold_in(key, 1), inner


def _generation(tactic: Full, problem: Problem, told: _Told) -> tuple[Population, Any]:
    return _of(tactic, problem).ask(told.inner)


def _survivors(tactic: Full, problem: Problem, inner: Any, archs: Population, values: Values) -> Any:
    goals = values[:, : len(problem.reference)]
    return _of(tactic, problem).tell(inner, archs, goals, violations(values, problem.limits))


def _of(tactic: Full, problem: Problem) -> Any:
    return replace(problem.algorithm, population=tactic.population)  # type: ignore[type-var]


_STEPS: dict[type, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    Random: (_no_algorithm, _anywhere, _nothing),
    Full: (_begin_algorithm, _generation, _survivors),
    Concurrent: (_no_algorithm, _predicted_best, _nothing),
}
