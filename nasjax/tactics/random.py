"""Random search over distinct architectures."""

from dataclasses import dataclass

from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, initial_batch
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Random:
    """Random search: measures `population` uniformly random architectures per step, and none twice."""

    population: int = 16

    def __post_init__(self):
        if self.population < 1:
            raise ConfigError(f"tactic.population must be at least 1, not {self.population}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        return Measured.empty(key, problem)

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        return initial_batch(state, self.population), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
