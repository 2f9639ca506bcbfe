"""Full search on validations: an algorithm whose every member is really measured (arXiv:2202.12954, section 3.3)."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, fresh
from nasjax.types import Population, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FullState:
    """What was measured, and the algorithm's own state."""

    measured: Measured
    inner: Any


@dataclass(frozen=True)
class Full:
    """Full search: the algorithm's generations are measured, every one of its members, none twice."""

    population: int = 16

    def __post_init__(self):
        if self.population < 2:
            raise ConfigError(f"tactic.population must be at least 2, not {self.population}")

    def init(self, key: PRNGKey, problem: Problem) -> FullState:
        algorithm = replace(problem.algorithm, population=self.population)  # type: ignore[type-var]
        problem = replace(problem, algorithm=algorithm)
        start = None if problem.warm is None else problem.warm.archs[: self.population]
        inner = algorithm.init(jax.random.fold_in(key, 0), problem.space, start, len(problem.reference))
        return FullState(Measured.nothing(jax.random.fold_in(key, 1), problem), inner)

    def ask(self, state: FullState) -> tuple[Population, FullState]:
        """Members measured before are replaced by their mutants, which the algorithm then goes on from."""
        archs, inner = state.measured.problem.algorithm.ask(state.inner)
        return fresh(state.measured, np.asarray(archs), self.population), replace(state, inner=inner)

    def tell(self, state: FullState, archs: Population, values: Values) -> FullState:
        measured = state.measured.add(archs, values)
        objectives, broken = (part[-len(archs) :].astype(np.float32) for part in measured.scores())
        inner = measured.problem.algorithm.tell(state.inner, np.asarray(archs, np.int32), objectives, broken)
        return FullState(measured, inner)
