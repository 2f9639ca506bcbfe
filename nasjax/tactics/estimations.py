"""Full search on estimations (arXiv:2202.12954, section 3.3): predictors of a large random sample, then one long search."""

from dataclasses import dataclass, replace

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, beginning, fresh
from nasjax.tactics.predicting import fitted, informed, ranked, scored
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class FullOnEstimations:
    """`sample` architectures are measured at random, predictors fitted once; the best of one long search are measured last.

    The search runs `generations`, its population at least what is left to measure.
    """

    sample: int = 1000
    generations: int = 500

    def __post_init__(self):
        for name in ("sample", "generations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {getattr(self, name)}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        if problem.evaluations <= self.sample:
            raise ConfigError(
                f"tactic.sample={self.sample} of evaluations={problem.evaluations} leaves none for what the search finds: "
                f"make the sample smaller, or evaluations larger"
            )
        return Measured.nothing(key, informed(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, told = state.problem, len(state.archs)
        if told < self.sample:
            return beginning(state, self.sample - told), state
        left = problem.evaluations - told
        algorithm = replace(problem.algorithm, population=max(problem.algorithm.population, left))  # type: ignore[type-var]
        models, state = fitted(state)
        score, key = scored(problem), state.key_of_step()
        inner = evolve(algorithm, problem.space, score, models, key, self.generations, None, len(problem.reference))
        return fresh(state, ranked(inner.archs, *score(models, inner.archs)), left), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
