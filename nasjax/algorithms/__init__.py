"""Algorithms: population-based optimisers with pure, jitted `init`, `ask` and `tell` on a state pytree; all minimise."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Int

from nasjax.algorithms.age_moea import AGEMOEA
from nasjax.algorithms.ctaea import CTAEA
from nasjax.algorithms.evosax import CMAES, SNES, DifferentialEvolution, Evosax, SepCMAES
from nasjax.algorithms.ga import GA
from nasjax.algorithms.moead import MOEAD
from nasjax.algorithms.nsga2 import NSGA2
from nasjax.algorithms.sms_emoa import SMSEMOA
from nasjax.algorithms.unsga3 import UNSGA3
from nasjax.space import SearchSpace
from nasjax.types import Objectives, Population, PRNGKey, Violations


@runtime_checkable
class Algorithm(Protocol):
    """Protocol of algorithms: a frozen dataclass of settings with three pure functions; the state is any pytree."""

    @property
    def population(self) -> int:
        """The number of architectures that each `ask` returns."""

    def init(self, key: PRNGKey, space: SearchSpace, start: Population | None = None, objectives: int = 2) -> Any:
        """The initial state. `start` are architectures to begin with, `objectives` is the number of objectives."""

    def ask(self, state: Any) -> tuple[Int[Array, "pop genes"], Any]:
        """`population` canonical architectures to be evaluated next, and the new state."""

    def tell(self, state: Any, archs: Population, objectives: Objectives, violations: Violations | None = None) -> Any:
        """The state updated with evaluated architectures; rows with NaN failed, `violations` above 0 break a constraint."""


ALGORITHMS: dict[str, type[Algorithm]] = {
    "nsga2": NSGA2,
    "age_moea": AGEMOEA,
    "unsga3": UNSGA3,
    "moead": MOEAD,
    "ctaea": CTAEA,
    "sms_emoa": SMSEMOA,
    "ga": GA,
    "cma_es": CMAES,
    "snes": SNES,
    "sep_cma_es": SepCMAES,
    "differential_evolution": DifferentialEvolution,
    "evosax": Evosax,
}
"""Algorithms by name, as in `algorithm=NAME`."""
