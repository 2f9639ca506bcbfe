"""Search on a proxy (arXiv:2202.12954, section 3.2): a cheap score stands in for what must be measured."""

from dataclasses import dataclass

import numpy as np

from nasjax.errors import ConfigError
from nasjax.tactics.base import Measured, Problem, Values, broken, fresh
from nasjax.tactics.predicting import ranked
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Proxy:
    """The algorithm runs `generations` with the score `proxy` (more is better) for the objective that is measured.

    Only the best of its last population are measured, all at once. Exact objectives and constraints stay what they are.
    Raises ConfigError where more is measured than one objective.
    """

    proxy: str = "synflow"
    generations: int = 40

    def __post_init__(self):
        if self.generations < 1:
            raise ConfigError(f"tactic.generations must be at least 1, not {self.generations}")

    def init(self, key: PRNGKey, problem: Problem) -> Measured:
        if self.proxy not in problem.proxies:
            allowed = ", ".join(problem.proxies) or "none: a table or a function has no networks to score"
            raise ConfigError(f"tactic.proxy={self.proxy} is not known here; allowed: {allowed}")
        measured = [i for i, cost in enumerate(problem.costs) if cost is None]
        if len(measured) > 1 or not all(i < len(problem.reference) for i in measured):
            raise ConfigError(
                "tactic=proxy takes one objective that is measured, which the score stands in for; "
                "all else, constraints too, must be exact costs"
            )
        return Measured.nothing(key, problem)

    def ask(self, state: Measured) -> tuple[Population, Measured]:
        problem, key = state.problem, state.key_of_step()
        algorithm, goals = problem.algorithm, len(problem.reference)
        score = problem.proxies[self.proxy]
        known: dict[bytes, float] = {}

        def values(archs: Population) -> tuple[Values, Values]:
            """The columns, the score in place of what is measured; no architecture is scored twice."""
            archs = np.asarray(archs, np.int32)
            new = np.array([arch for arch in np.unique(archs, axis=0) if bytes(arch) not in known], np.int32)
            if len(new):
                known.update(zip(map(bytes, new), np.asarray(score(new)).tolist(), strict=True))
            found = np.array([-known[bytes(arch)] for arch in archs], np.float32)
            columns = np.stack([found if cost is None else np.asarray(cost(archs)) for cost in problem.costs], 1)
            return columns[:, :goals], broken(problem, archs).astype(np.float32)

        start = None if problem.warm is None else problem.warm.archs[: algorithm.population]
        inner = algorithm.init(key, problem.space, start, goals)
        for _ in range(self.generations):
            archs, inner = algorithm.ask(inner)
            inner = algorithm.tell(inner, archs, *values(archs))
        left = problem.evaluations - len(state.archs)
        return fresh(state, ranked(inner.archs, *values(inner.archs)), left), state

    def tell(self, state: Measured, archs: Population, values: Values) -> Measured:
        return state.add(archs, values)
