"""A whole evolutionary run as one jitted scan, for objectives that are computed on the device."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax

from nasjax.algorithms import Algorithm
from nasjax.space import SearchSpace
from nasjax.types import Population, PRNGKey


@partial(jax.jit, static_argnames=("algorithm", "space", "objective", "generations", "objectives"))
def evolve(
    algorithm: Algorithm,
    space: SearchSpace,
    objective: Callable[[Any, Population], Any],
    parameters: Any,
    key: PRNGKey,
    generations: int,
    start: Population | None = None,
    objectives: int = 2,
) -> Any:
    """The algorithm's state after `generations` rounds of ask, `objective(parameters, archs)`, tell.

    `objective` gives objectives (pop, obj), or a pair of them and violations (pop).
    It is compiled in: pass the same function object, and a refitted predictor as `parameters`, to compile once.
    """

    def generation(state, _):
        archs, state = algorithm.ask(state)
        values = objective(parameters, archs)
        return algorithm.tell(state, archs, *(values if isinstance(values, tuple) else (values,))), None

    state = algorithm.init(key, space, start, objectives)
    return lax.scan(generation, state, length=generations)[0]
