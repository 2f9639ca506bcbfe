"""A complete evolutionary run as one jitted scan, for objectives that are computed on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax

from nasjax.algorithms import Algorithm
from nasjax.space import SearchSpace
from nasjax.types import Objectives, Population, PRNGKey, Violations


@partial(jax.jit, static_argnames=("algorithm", "space", "objective", "generations", "objectives"))
def evolve(
    algorithm: Algorithm,
    space: SearchSpace,
    objective: Callable[[Any, Population], Objectives | tuple[Objectives, Violations]],
    parameters: Any,
    key: PRNGKey,
    generations: int,
    start: Population | None = None,
    objectives: int = 2,
) -> Any:
    """The algorithm's state after `generations` rounds of ask, evaluate, tell.

    `objective(parameters, archs)` returns objectives (pop, obj), or a pair of objectives and violations (pop). It is a
    static argument: pass the same function object, and what varies (a refitted predictor) as `parameters`, to compile once.
    `objectives` is the number of objectives, `start` the initial architectures.
    """

    def generation(state: Any, _: None) -> tuple[Any, None]:
        archs, state = algorithm.ask(state)
        values = objective(parameters, archs)
        return algorithm.tell(state, archs, *(values if isinstance(values, tuple) else (values,))), None

    state = algorithm.init(key, space, start, objectives)
    return lax.scan(generation, state, length=generations)[0]
