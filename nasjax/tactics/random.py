"""Random search: distinct architectures, uniformly."""

from dataclasses import dataclass

import numpy as np

from nasjax.tactics.problem import Measured, Problem, fresh
from nasjax.types import Objectives, Population, PRNGKey


@dataclass(frozen=True)
class Random:
    """Random search: measures architectures drawn uniformly from the space, none twice."""

    population: int = 16

    def __post_init__(self):
        if self.population < 1:
            raise ValueError(f"tactic.population must be at least 1, not {self.population}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.nothing(key, problem)

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        draws = state.problem.space.sample(state.key_of_step(), self.population)
        return fresh(state, np.asarray(draws), self.population), state

    def tell(self, state: Measured, archs: Population, objectives: Objectives) -> Measured:
        return state.add(archs, objectives)
