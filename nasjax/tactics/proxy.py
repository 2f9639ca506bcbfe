"""Search on a proxy (arXiv:2202.12954, section 3.2): a cheap score replaces the measured objective."""

from dataclasses import dataclass

import jax
import numpy as np

from nasjax.errors import ConfigError
from nasjax.tactics.base import MOST_AT_ONCE, Measured, Problem, Values, constraint_violations, unmeasured
from nasjax.tactics.predicting import sort_by_rank
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Proxy:
    """The algorithm runs for `generations` on the score `proxy` (more is better) in place of the one measured objective.

    Only the best of its last population are measured, all at once. Exact objectives and constraints are used as they are.
    Raises ConfigError for an unknown proxy, or if more than one objective, or any constraint, must be measured.
    """

    proxy: str = "synflow"
    generations: int = 40

    def __post_init__(self):
        if self.generations < 1:
            raise ConfigError(f"tactic.generations must be at least 1, not {self.generations}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        problem.proxy(self.proxy, "tactic.proxy")  # Refuses an unknown one.
        measured = [i for i, cost in enumerate(problem.costs) if cost is None]
        if len(measured) > 1 or not all(i < len(problem.reference) for i in measured):
            raise ConfigError(
                "tactic=proxy supports one measured objective, which the score replaces; "
                "all other objectives and constraints must be exact costs"
            )
        return Measured.empty(key, problem)

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.step_key()
        algorithm, goals = problem.algorithm, len(problem.reference)
        score = problem.proxy(self.proxy, "tactic.proxy")
        known: dict[bytes, float] = {}

        def values(archs: Population) -> tuple[Values, Values]:
            """Objectives, with the negated score for the measured one, and violations; scores every architecture once."""
            archs = np.asarray(archs, np.int32)
            new = np.array([arch for arch in np.unique(archs, axis=0) if bytes(arch) not in known], np.int32)
            if len(new):
                known.update(zip(map(bytes, new), np.asarray(score(new)).tolist(), strict=True))
            found = np.array([-known[bytes(arch)] for arch in archs], np.float32)
            columns = np.stack([found if cost is None else np.asarray(jax.jit(cost)(archs)) for cost in problem.costs], 1)
            return columns[:, :goals], constraint_violations(problem, archs).astype(np.float32)

        start = None if problem.warm is None else problem.warm.archs[: algorithm.population]
        inner = algorithm.init(key, problem.space, start, goals)
        for _ in range(self.generations):
            archs, inner = algorithm.ask(inner)
            inner = algorithm.tell(inner, archs, *values(archs))
        left = min(problem.evaluations - len(state.archs), MOST_AT_ONCE)
        return unmeasured(state, sort_by_rank(inner.archs, *values(inner.archs)), left), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
