"""Full search on measurements (arXiv:2202.12954, section 3.3): all members of an algorithm's populations are measured."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, unmeasured
from nasjax.types import Population, PRNGKey


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FullState:
    """The measurements, and the state of the algorithm."""

    measured: Measured
    inner: Any


@dataclass(frozen=True)
class Full:
    """Full search: measures every generation of the algorithm, `population` architectures each, and none twice."""

    population: int = 16

    def __post_init__(self):
        if self.population < 2:
            raise ConfigError(f"tactic.population must be at least 2, not {self.population}")

    def init(self, key: PRNGKey, problem: Problem) -> FullState:
        algorithm = replace(problem.algorithm, population=self.population)  # type: ignore[type-var]
        problem = replace(problem, algorithm=algorithm)
        start = None if problem.warm is None else problem.warm.archs[: self.population]
        inner = algorithm.init(jax.random.fold_in(key, 0), problem.space, start, len(problem.reference))
        return FullState(Measured.empty(jax.random.fold_in(key, 1), problem), inner)

    def ask(self, state: FullState) -> tuple[Population, FullState]:
        """The next generation; members measured before are replaced by their mutants."""
        archs, inner = state.measured.problem.algorithm.ask(state.inner)
        return unmeasured(state.measured, np.asarray(archs), self.population), replace(state, inner=inner)

    def tell(self, state: FullState, archs: Population, values: Values) -> FullState:
        measured = state.measured.add(archs, values)
        objectives, violations = (part[-len(archs) :].astype(np.float32) for part in measured.objectives_and_violations())
        inner = measured.problem.algorithm.tell(state.inner, np.asarray(archs, np.int32), objectives, violations)
        return FullState(measured, inner)
