"""WeakNAS (arXiv:2106.01490): a fixed pool, of which ever weaker predictors' best are drawn and measured."""

from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from nasjax.errors import ConfigError
from nasjax.space import duplicates
from nasjax.tactics.base import Measured, Problem, Values, broken, fresh
from nasjax.tactics.predicting import fitted, informed, ranked, scored
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class WeakNAS:
    """`first` of a random `pool` are measured, then `batch` a round, drawn from the `top` of the pool as predicted.

    Constraints on exact costs (a band of macs) hold for the whole pool. With several objectives the top is by front, then
    by crowding distance; the paper has one.
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
            raise ConfigError(f"tactic.batch={self.batch} cannot be drawn from tactic.top={self.top}: make it smaller")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.nothing(key, informed(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.key_of_step()
        pool = drawn(problem, state.key, self.pool)
        if np.isfinite(state.values).all(1).sum() < 2:
            start = pool if problem.warm is None else np.concatenate([problem.warm.archs[: self.first], pool])
            return fresh(state, start, self.first), state
        models, state = fitted(state)
        known = set(map(bytes, state.archs))
        order = ranked(pool, *scored(problem)(models, jnp.asarray(pool)))
        top = np.array([arch for arch in order if bytes(arch) not in known], np.int32).reshape(-1, pool.shape[1])[: self.top]
        return fresh(state, np.asarray(jax.random.permutation(key, top)), self.batch), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)


def drawn(problem: Problem, key: PRNGKey, number: int) -> Int[np.ndarray, "pop genes"]:
    """At most `number` distinct architectures that keep the constraints on exact costs; the same for the same key.

    Fewer where the constraints leave few.
    """
    return _drawn(problem, tuple(np.asarray(jax.random.key_data(key)).tolist()), number)


@lru_cache(maxsize=4)
def _drawn(problem: Problem, key: tuple[int, ...], number: int) -> Int[np.ndarray, "pop genes"]:
    draw = jax.random.wrap_key_data(jnp.asarray(key, jnp.uint32))
    if problem.rows is not None:
        archs = np.asarray(jax.random.permutation(draw, np.asarray(problem.rows)))
        return archs[broken(problem, archs) == 0][:number]
    found = np.zeros((0, len(problem.space.genes)), np.int32)
    for i in range(64):
        archs = np.asarray(problem.space.sample(jax.random.fold_in(draw, i), number))
        found = np.concatenate([found, archs[broken(problem, archs) == 0]])
        found = found[~np.asarray(duplicates(found))][:number]
        if len(found) == number or problem.space.size <= number * i:
            break
    return found
