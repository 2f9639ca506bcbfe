"""The search problem, the protocol of tactics, the state that they share, and the selection of unmeasured architectures."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.algorithms import Algorithm
from nasjax.errors import ConfigError
from nasjax.graphs import function_keys
from nasjax.pareto import PENALTY_PER_VIOLATION, best_rows, violations
from nasjax.predictors import Inputs, Predictor
from nasjax.space import SearchSpace
from nasjax.types import Population, PRNGKey

Values = Float[Array | np.ndarray, "pop columns"]
"""One row per architecture: objectives, then columns that only constraints name; minimised, NaN if it failed."""

CostFunction = Callable[[Population], Float[Array, " pop"]]

LEAST_LENGTH = 128
"""Least length of padded measurements: small searches compile once, larger ones once more for each doubling."""

MOST_AT_ONCE = 4096
"""The most architectures that are drawn or searched for at once, however large the budget is."""

MAX_COMBINATIONS = 1_000_000
"""Spaces with at most this many combinations of options are enumerated when random sampling finds nothing new."""


class Warm(NamedTuple):
    """What earlier searches measured: architectures, best first, and their known values in the problem's columns.

    `targets` is what a prior is fitted to: a column for each metric of each earlier search, in any unit and sign (None: the
    columns of `values` that must be measured). NaN: unknown. `lacking` has for each target the genes, by position, that the
    earlier search's networks did not have: they are set to their last options (empty: every search had all genes).
    """

    archs: Int[np.ndarray, "rows genes"]
    values: Float[np.ndarray, "rows columns"]
    targets: Float[np.ndarray, "rows targets"] | None = None
    lacking: tuple[tuple[int, ...], ...] = ()


class Scores(NamedTuple):
    """Scores of architectures by proxies, a column for each proxy; NaN: unknown."""

    archs: Int[np.ndarray, "rows genes"]
    values: Float[np.ndarray, "rows proxies"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Search problem of a tactic, as arrays and functions: the space, exact costs, limits, predictors and a warm start.

    A problem has columns: the objectives first, then quantities that only constraints name. All columns are minimised or
    bounded.

    - `space`, `evaluations`: the search space, and the budget of measurements.
    - `costs`: per column a jittable function if it is computed exactly, None if it must be measured.
    - `limits`: per column the least and greatest value allowed, infinite if unconstrained.
    - `reference`: the reference point of the hypervolume, one value per objective.
    - `algorithm`, `predictor`, `inputs`: the optimiser of inner searches, the predictor, and the features that it reads.
    - `rows`: the architectures that can be measured, if not all of the space (those of a table).
    - `repair`: replaces architectures that cannot be measured by the nearest ones that can.
    - `warm`: what an earlier search measured.
    - `proxies`: cheap scores by name, computed on the host; more is better.
    - `scores`: some architectures' scores by proxies, which predictors are to read.
    - `fitting`: a context in which predictors are fitted, by which a search counts their time.
    """

    space: SearchSpace
    evaluations: int
    costs: tuple[CostFunction | None, ...]
    algorithm: Algorithm
    predictor: Predictor
    reference: Float[np.ndarray, " obj"]
    limits: tuple[tuple[float, float], ...]
    inputs: Inputs
    rows: Population | None = None
    repair: Callable[[Population], Population] | None = None
    warm: Warm | None = None
    proxies: Mapping[str, Callable[[Population], Float[np.ndarray, " pop"]]] = field(default_factory=dict)
    scores: Scores | None = None
    fitting: Callable[[], AbstractContextManager[None]] = nullcontext

    def proxy(self, name: str, setting: str) -> Callable[[Population], Float[np.ndarray, " pop"]]:
        """The cheap score that a setting names. Raises ConfigError where there is none of that name."""
        if name not in self.proxies:
            allowed = ", ".join(self.proxies) or "none, because a table or a function has no networks to score"
            raise ConfigError(f"{setting}={name} is unknown for this super-network; allowed: {allowed}")
        return self.proxies[name]

    def sample(self, key: PRNGKey, number: int) -> Int[np.ndarray, "number genes"]:
        """`number` architectures drawn uniformly, with replacement, from those that can be measured."""
        if self.rows is None:
            return np.asarray(self.space.sample(key, number))
        return np.asarray(self.rows)[np.asarray(jax.random.randint(key, (number,), 0, len(self.rows)))]


class Fit(NamedTuple):
    """Cross-validated errors of the predictor of one column when it was fitted; `mape` in %, `rmse` in the column's unit.

    `chosen` is the name of the base predictor if one was selected among several (`predictor=auto`).
    """

    column: int
    rows: int
    mape: float
    rmse: float
    tau: float
    chosen: str = ""


class Tactic(Protocol):
    """Protocol of tactics: the outer loop of a search as functions of a state, a pytree that can be saved after every step.

    `ask` may return fewer architectures than its batch, or none if the space is exhausted. `tell` is called with the
    architectures asked for, in order, or the first of them if the budget ends there, and their values in all columns (NaN:
    failed).
    """

    def init(self, key: PRNGKey, problem: Problem) -> Any: ...

    def ask(self, state: Any) -> tuple[Population, Any]: ...

    def tell(self, state: Any, archs: Population, values: Values) -> Any: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measured:
    """State shared by all tactics: the problem, and all measurements in order."""

    problem: Problem = field(metadata={"static": True})
    key: PRNGKey
    step: int | np.ndarray
    archs: Int[np.ndarray, "measured genes"]
    values: Float[np.ndarray, "measured columns"]
    fits: tuple[Fit, ...] = ()

    @classmethod
    def empty(cls, key: PRNGKey, problem: Problem) -> "Measured":
        """The state before the first step."""
        genes, columns = len(problem.space.genes), len(problem.costs)
        return cls(problem, key, np.array(0), np.zeros((0, genes), np.int32), np.zeros((0, columns)))

    def objectives_and_violations(self) -> tuple[Float[np.ndarray, "measured obj"], Float[np.ndarray, " measured"]]:
        """Objectives and constraint violations of all measurements; NaN where they failed."""
        return self.values[:, : len(self.problem.reference)], np.asarray(violations(self.values, self.problem.limits))

    @property
    def objectives(self) -> Float[np.ndarray, "measured obj"]:
        """Objectives of all measurements; NaN where they failed or break a constraint."""
        objectives, violated = self.objectives_and_violations()
        return np.where((violated == 0)[:, None], objectives, np.nan)

    def step_key(self) -> PRNGKey:
        """The PRNG key of the next step."""
        return jax.random.fold_in(self.key, int(self.step))

    def add(self, archs: Population, values: Values) -> "Measured":
        """The state with the measurements of one more step."""
        return replace(
            self,
            step=np.array(int(self.step) + 1),
            archs=np.concatenate([self.archs, np.asarray(archs, np.int32)]),
            values=np.concatenate([self.values, np.asarray(values, np.float64)]),
            fits=(),
        )


def constraint_violations(problem: Problem, archs: Population) -> Float[np.ndarray, " pop"]:
    """Total violation of the constraints on exact costs, 0 where they hold (see `pareto.violations`)."""
    exact = [(cost, limit) for cost, limit in zip(problem.costs, problem.limits, strict=True) if cost is not None]
    if not exact:
        return np.zeros(len(archs))
    values = np.stack([np.asarray(jax.jit(cost)(archs)) for cost, _ in exact], 1)
    return np.asarray(violations(values, tuple(limit for _, limit in exact)))


def padded_length(rows: int) -> int:
    """The length to which `rows` measurements are padded, whatever the budget: a power of two, at least `LEAST_LENGTH`."""
    return max(LEAST_LENGTH, 1 << max(rows - 1, 0).bit_length())


def padded_measurements(state: Measured, most: float = math.inf) -> tuple[Population, Values]:
    """Architectures and values measured so far, at most `most` of them (`relevant_rows`), padded with NaN values."""
    rows = relevant_rows(state, most)
    return padded_rows(state.archs[rows], state.values[rows])


def padded_rows(archs: Population, values: Values) -> tuple[Population, Values]:
    """Architectures and values as 32-bit numbers, padded to `padded_length` with NaN values."""
    shape = (padded_length(len(archs)), archs.shape[1])
    known, found = np.zeros(shape, np.int32), np.full((shape[0], values.shape[1]), np.nan, np.float32)
    known[: len(archs)], found[: len(archs)] = archs, values
    return known, found


def relevant_rows(state: Measured, most: float) -> Int[np.ndarray, " rows"]:
    """All measurements if there are at most `most`; of more those that matter, without failed ones, in order.

    Half are the best by non-domination rank, a quarter the most recent, and the rest is spread over all others.
    """
    if len(state.archs) <= most:
        return np.arange(len(state.archs))
    number = int(most)
    valid = np.flatnonzero(np.isfinite(state.values).all(1))
    objectives, violated = (part[valid] for part in state.objectives_and_violations())
    objectives[violated > 0] = PENALTY_PER_VIOLATION * violated[violated > 0, None]
    kept = np.zeros(len(valid), bool)
    kept[best_rows(objectives, number // 2)] = True
    kept[-(number // 4) :] = True
    others = np.flatnonzero(~kept)
    spread = np.linspace(0, len(others) - 1, min(number - int(kept.sum()), len(others))).astype(int)
    kept[others[spread]] = True
    return valid[kept]


def initial_batch(state: Measured, number: int) -> Int[np.ndarray, "pop genes"]:
    """The first architectures to measure: the best of an earlier search if there is one, otherwise random ones."""
    warm = state.problem.warm
    if warm is not None and not len(state.archs):
        return unmeasured(state, warm.archs, number)
    return unmeasured(state, state.problem.sample(state.step_key(), number), number)


def functions_first(problem: Problem, archs: Population) -> Population:
    """The architectures in order, but last those whose function an earlier one computes; unchanged without a graph."""
    if problem.inputs.graph is None:
        return archs
    keys = function_keys(problem.inputs.graph, np.asarray(archs))
    repeated = np.ones(len(keys), bool)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return np.asarray(archs)[np.argsort(repeated, kind="stable")]


def unmeasured(measured: Measured, proposals: Population, number: int) -> Int[np.ndarray, "pop genes"]:
    """The first `number` proposals not measured yet, topped up with mutants of the proposals, then random architectures.

    Returns fewer rows, or none, if the space is exhausted.
    """
    problem = measured.problem
    key = jax.random.fold_in(measured.step_key(), 1)
    chosen: list[np.ndarray] = []
    known = {arch.tobytes() for arch in measured.archs}

    def take(archs: Population) -> bool:
        archs = np.asarray(archs, np.int32)
        for arch in np.asarray(archs if problem.repair is None or not len(archs) else problem.repair(archs)):
            if len(chosen) < number and arch.tobytes() not in known:
                known.add(arch.tobytes())
                chosen.append(arch)
        return len(chosen) == number

    def attempts() -> Iterator[Population]:
        yield proposals
        rate = 1.5 / len(problem.space.genes)
        for i in range(8):
            step = jax.random.fold_in(key, i)
            yield problem.space.mutate(step, proposals, rate) if len(proposals) else proposals
        for i in range(8, 16):
            yield problem.sample(jax.random.fold_in(key, i), 2 * min(number, MOST_AT_ONCE))
        if problem.rows is not None:
            yield jax.random.permutation(jax.random.fold_in(key, 16), problem.rows)
        elif np.prod(np.array(problem.space.counts, np.float64)) <= MAX_COMBINATIONS:
            yield jax.random.permutation(jax.random.fold_in(key, 16), problem.space.all_architectures())

    for archs in attempts():
        if take(archs):
            break
    return np.array(chosen, np.int32).reshape(-1, len(problem.space.genes))
