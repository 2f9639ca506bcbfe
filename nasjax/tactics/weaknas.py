"""WeakNAS (arXiv:2106.01490): a fixed random pool, from whose predicted best each round draws what to measure."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from nasjax.errors import ConfigError
from nasjax.space import duplicates
from nasjax.tactics.base import Measured, Problem, Values, constraint_violations, unmeasured
from nasjax.tactics.predicting import fit_predictors, scoring_function, sort_by_rank
from nasjax.tactics.priors import with_prior
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class WeakNAS:
    """WeakNAS: measures `first` architectures of a random `pool`, then `batch` per round drawn from the `top` predictions.

    All architectures of the pool keep the constraints on exact costs. With several objectives, unlike in the paper, the top
    is by non-domination rank, then crowding distance. Raises ConfigError for invalid settings.
    """

    pool: int = 10_000
    first: int = 100
    batch: int = 100
    top: int = 1000

    def __post_init__(self):
        for name in ("pool", "first", "batch", "top"):
            if getattr(self, name) < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")
        if self.top < self.batch:
            raise ConfigError(f"tactic.batch={self.batch} must not exceed tactic.top={self.top}, from which it is drawn")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.empty(key, with_prior(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.step_key()
        pool = draw_pool(problem, state.key, self.pool)
        if np.isfinite(state.values).all(1).sum() < 2:
            start = pool if problem.warm is None else np.concatenate([problem.warm.archs[: self.first], pool])
            return unmeasured(state, start, self.first), state
        models, state = fit_predictors(state)
        known = set(map(bytes, state.archs))
        order = sort_by_rank(pool, *scoring_function(problem)(models, jnp.asarray(pool)))
        top = np.array([arch for arch in order if bytes(arch) not in known], np.int32).reshape(-1, pool.shape[1])[: self.top]
        return unmeasured(state, np.asarray(jax.random.permutation(key, top)), self.batch), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)


def draw_pool(problem: Problem, key: PRNGKey, number: int) -> Int[np.ndarray, "pop genes"]:
    """At most `number` distinct random architectures that keep the constraints on exact costs; equal for equal keys.

    Fewer if constraints leave fewer.
    """
    return _cached_pool(problem, tuple(np.asarray(jax.random.key_data(key)).tolist()), number)


@lru_cache(maxsize=4)
def _cached_pool(problem: Problem, key: tuple[int, ...], number: int) -> Int[np.ndarray, "pop genes"]:
    draw = jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32))
    if problem.rows is not None:
        archs = np.asarray(jax.random.permutation(draw, np.asarray(problem.rows)))
        return archs[constraint_violations(problem, archs) == 0][:number]
    found = np.zeros((0, len(problem.space.genes)), np.int32)
    for i in range(64):
        archs = np.asarray(problem.space.sample(jax.random.fold_in(draw, i), number))
        found = np.concatenate([found, archs[constraint_violations(problem, archs) == 0]])
        found = found[~np.asarray(duplicates(found))][:number]
        if len(found) == number or problem.space.size <= number * i:
            break
    return found
