"""The search problem as tactics see it: arrays and jittable functions, no network and no archive."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Array, Float

from nasjax.algorithms import Algorithm
from nasjax.objectives import Goals, Objective, parse_goals
from nasjax.predictors import Inputs, Predictor
from nasjax.searches.problem import SearchProblem, SelfMeasuring
from nasjax.searches.settings import SearchSettings
from nasjax.searches.warm_start import read_warm_start
from nasjax.supernets import SuperNet
from nasjax.tactics import Problem, Warm
from nasjax.types import Population


class Estimator(Protocol):
    """An exact cost table, or a latency model: float32 values of architectures inside jit, in natural sign."""

    def estimate(self, archs: Population) -> Float[Array, " pop"]: ...


@dataclass(frozen=True)
class MinimisedCost:
    """A cost as a jittable function that is minimised. Equal instances are one function, which compiles once."""

    estimator: Estimator
    sign: int

    def __call__(self, archs: Population) -> Float[Array, " pop"]:
        return self.sign * self.estimator.estimate(archs)


def posed(settings: SearchSettings, problem: SearchProblem, net: SuperNet | SelfMeasuring) -> tuple[Goals, Problem]:
    """The goals of a search with these settings, and its problem as a tactic sees it.

    Raises ConfigError for goals that name what cannot be measured or bounded, and for a warm start that cannot be read.
    """
    problem.check_named((*settings.objectives, *settings.constraints))
    goals = parse_goals(settings.objectives, settings.constraints, problem.measurable, settings.references, problem.space)
    warm = None if settings.warm_start is None else read_warm_start(settings.warm_start, problem, goals, net)
    return goals, tactic_problem(problem, goals, settings.algorithm, settings.predictor, settings.evaluations, warm)


def tactic_problem(
    problem: SearchProblem,
    goals: Goals,
    algorithm: Algorithm,
    predictor: Predictor,
    evaluations: int,
    warm: Warm | None = None,
) -> Problem:
    """The search problem as a tactic's `Problem`; `warm` is what an earlier search measured."""
    exact: dict[str, Estimator] = {**problem.costs, **problem.bounded_genes(goals)}
    return Problem(
        space=problem.space,
        evaluations=evaluations,
        costs=tuple(_cost(exact.get(column.name) or problem.estimates.get(column.name), column) for column in goals.columns),
        algorithm=algorithm,
        predictor=predictor,
        reference=goals.reference,
        limits=goals.limits,
        inputs=Inputs(problem.space, problem.costs["macs"].by_unit if "macs" in problem.costs else None, problem.graph),
        rows=problem.rows,
        repair=problem.repair,
        warm=warm,
        proxies=problem.proxies,
    )


def _cost(estimator: Estimator | None, column: Objective) -> MinimisedCost | None:
    """The function of a column that is computed or estimated by a latency model; None where it is measured."""
    return None if estimator is None else MinimisedCost(estimator, column.sign)
