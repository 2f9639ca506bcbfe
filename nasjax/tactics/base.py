"""What a tactic is given, the part of its state that all tactics share, and the choice of architectures not seen before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from nasjax.algorithms import Algorithm
from nasjax.pareto import violations
from nasjax.predictors import Inputs, Predictor
from nasjax.space import SearchSpace
from nasjax.types import Population, PRNGKey

Values = Float[Array | np.ndarray, "pop columns"]
"""One row an architecture: its objectives, minimised, then what only constraints name; NaN marks a failed measurement."""

CostFunction = Callable[[Population], Float[Array, " pop"]]

ENUMERABLE = 1_000_000


class Warm(NamedTuple):
    """Architectures of an earlier search, best first, and what is known of them in the problem's columns (NaN: nothing)."""

    archs: Int[np.ndarray, "rows genes"]
    values: Float[np.ndarray, "rows columns"]


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be searched, as arrays and functions.

    `costs` has one entry a column, the objectives first, then what only constraints name: a jittable function where it is
    computed exactly (minimised), None where it must be measured; `limits` the least and greatest value allowed in each.
    `reference` is the hypervolume's, minimised, one entry an objective; `inputs` what predictors read. Where only some
    architectures can be measured (a table's), those are `rows`, and `repair` replaces others by the ones that are meant.
    `warm` is what an earlier search left; `proxies` score architectures on the host, more is better.
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

    def sample(self, key: PRNGKey, number: int) -> Int[np.ndarray, "number genes"]:
        """Architectures drawn uniformly, with replacement, from those that can be measured."""
        if self.rows is None:
            return np.asarray(self.space.sample(key, number))
        return np.asarray(self.rows)[np.asarray(jax.random.randint(key, (number,), 0, len(self.rows)))]

    @property
    def capacity(self) -> int:
        """The length that arrays of measurements are padded to: nothing compiles again while they fill."""
        return 1 << (max(self.evaluations, 1) - 1).bit_length()


class Fit(NamedTuple):
    """How good the predictor of one column was when it was fitted, by cross-validation; mape in %, rmse in its unit.

    `chosen` is the name of the predictor where one was chosen among several.
    """

    column: int
    rows: int
    mape: float
    rmse: float
    tau: float
    chosen: str = ""


class Tactic(Protocol):
    """The outer loop of a search, as functions of its state (a pytree that can be saved after every step).

    `ask` may return fewer architectures than its batch, or none where the space is exhausted. `tell` gets those asked for,
    in order, or the first of them where the budget ended, and their value in every column (NaN: failed).
    """

    def init(self, key: PRNGKey, problem: Problem) -> Any: ...

    def ask(self, state: Any) -> tuple[Population, Any]: ...

    def tell(self, state: Any, archs: Population, values: Values) -> Any: ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Measured:
    """The state that all tactics share: the problem, and what they have been told, in order."""

    problem: Problem = field(metadata={"static": True})
    key: PRNGKey
    step: int | np.ndarray
    archs: Int[np.ndarray, "told genes"]
    values: Float[np.ndarray, "told columns"]
    fits: tuple[Fit, ...] = ()

    @classmethod
    def nothing(cls, key: PRNGKey, problem: Problem) -> "Measured":
        """Before the first step."""
        genes, columns = len(problem.space.genes), len(problem.costs)
        return cls(problem, key, np.array(0), np.zeros((0, genes), np.int32), np.zeros((0, columns)))

    def scores(self) -> tuple[Float[np.ndarray, "told obj"], Float[np.ndarray, " told"]]:
        """Objectives and violations of what was told; NaN where it failed."""
        return self.values[:, : len(self.problem.reference)], np.asarray(violations(self.values, self.problem.limits))

    @property
    def objectives(self) -> Float[np.ndarray, "told obj"]:
        """What was told, objectives alone; NaN where it failed or breaks a constraint."""
        objectives, broken = self.scores()
        return np.where((broken == 0)[:, None], objectives, np.nan)

    def key_of_step(self) -> PRNGKey:
        """The key of the step to come."""
        return jax.random.fold_in(self.key, int(self.step))

    def add(self, archs: Population, values: Values) -> "Measured":
        """With one step's measurements."""
        return replace(
            self,
            step=np.array(int(self.step) + 1),
            archs=np.concatenate([self.archs, np.asarray(archs, np.int32)]),
            values=np.concatenate([self.values, np.asarray(values, np.float64)]),
            fits=(),
        )


def broken(problem: Problem, archs: Population) -> Float[np.ndarray, " pop"]:
    """How far architectures are from keeping the constraints on exact costs, 0 where they do (see `pareto.violations`)."""
    exact = [(cost, limit) for cost, limit in zip(problem.costs, problem.limits, strict=True) if cost is not None]
    if not exact:
        return np.zeros(len(archs))
    values = np.stack([np.asarray(cost(jnp.asarray(archs))) for cost, _ in exact], 1)
    return np.asarray(violations(values, tuple(limit for _, limit in exact)))


def padded(state: Measured) -> tuple[Population, Values]:
    """What was told, padded with NaN to the budget's capacity, so that nothing compiles again."""
    told, capacity = len(state.archs), state.problem.capacity
    archs = np.zeros((capacity, state.archs.shape[1]), np.int32)
    values = np.full((capacity, state.values.shape[1]), np.nan, np.float32)
    archs[:told], values[:told] = state.archs[:capacity], state.values[:capacity]
    return archs, values


def beginning(state: Measured, number: int) -> Int[np.ndarray, "pop genes"]:
    """What is measured first: the best of an earlier search, or else architectures drawn uniformly."""
    warm = state.problem.warm
    if warm is not None and not len(state.archs):
        return fresh(state, warm.archs, number)
    return fresh(state, state.problem.sample(state.key_of_step(), number), number)


def fresh(measured: Measured, proposals: Population, number: int) -> Int[np.ndarray, "pop genes"]:
    """The first `number` proposals not measured yet; topped up with their mutants, then random architectures.

    Fewer, or none, where the space holds no more.
    """
    problem = measured.problem
    key = jax.random.fold_in(measured.key_of_step(), 1)
    chosen: list[np.ndarray] = []
    known = {arch.tobytes() for arch in measured.archs}

    def take(archs: Population) -> bool:
        archs = np.asarray(archs, np.int32)
        for arch in np.asarray(archs if problem.repair is None or not len(archs) else problem.repair(archs)):
            if len(chosen) < number and arch.tobytes() not in known:
                known.add(arch.tobytes())
                chosen.append(arch)
        return len(chosen) == number

    def attempts() -> Any:
        yield proposals
        rate = 1.5 / len(problem.space.genes)
        for i in range(8):
            step = jax.random.fold_in(key, i)
            yield problem.space.mutate(step, proposals, rate) if len(proposals) else proposals
        for i in range(8, 16):
            yield problem.sample(jax.random.fold_in(key, i), 2 * number)
        if problem.rows is not None:
            yield jax.random.permutation(jax.random.fold_in(key, 16), problem.rows)
        elif np.prod(np.array(problem.space.counts, np.float64)) <= ENUMERABLE:
            yield jax.random.permutation(jax.random.fold_in(key, 16), problem.space.everything())

    for archs in attempts():
        if take(archs):
            break
    return np.array(chosen, np.int32).reshape(-1, len(problem.space.genes))
