"""Full search on estimations (arXiv:2202.12954, section 3.3): one long search on predictors of a random sample."""

from dataclasses import dataclass, replace

from nasjax.algorithms.evolve import evolve
from nasjax.errors import ConfigError
from nasjax.tactics.base import MOST_AT_ONCE, Measured, Problem, Values, initial_batch, unmeasured
from nasjax.tactics.predicting import fit_predictors, scoring_function, sort_by_rank
from nasjax.tactics.priors import with_prior
from nasjax.types import Population, PRNGKey

MOST_SAMPLED = 1000
"""Random architectures that are measured by default, at most."""


@dataclass(frozen=True)
class FullOnEstimations:
    """Measures random architectures, fits predictors once, and measures the best of one long search on them.

    If more than `MOST_AT_ONCE` evaluations remain, the search is repeated. Raises ConfigError if the sample takes the whole
    budget.

    Attributes:
      sample: how many random architectures are measured; null: half of the evaluations, at most 1000.
      generations: how long the search runs, with a population of at least the remaining evaluations.
    """

    sample: int | None = None
    generations: int = 500

    def __post_init__(self):
        for name in ("sample", "generations"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"tactic.{name} must be at least 1, not {value}")

    def sample_of(self, problem: Problem) -> int:
        """How many random architectures are measured."""
        return self.sample or max(1, min(MOST_SAMPLED, problem.evaluations // 2))

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        if self.sample is not None and problem.evaluations <= self.sample:
            raise ConfigError(
                f"tactic.sample={self.sample} of evaluations={problem.evaluations} leaves none for the search: "
                f"make the sample smaller or evaluations larger"
            )
        return Measured.empty(key, with_prior(problem))

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, measured = state.problem, len(state.archs)
        if (missing := self.sample_of(problem) - measured) > 0:
            return initial_batch(state, min(missing, MOST_AT_ONCE)), state
        left = min(problem.evaluations - measured, MOST_AT_ONCE)
        algorithm = replace(problem.algorithm, population=max(problem.algorithm.population, left))  # type: ignore[type-var]
        models, state = fit_predictors(state)
        score, key = scoring_function(problem), state.step_key()
        inner = evolve(algorithm, problem.space, score, models, key, self.generations, None, len(problem.reference))
        return unmeasured(state, sort_by_rank(inner.archs, *score(models, inner.archs)), left), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
