"""Search tactics: the outer loop that decides what is measured next."""

from nasjax.tactics.concurrent import Concurrent
from nasjax.tactics.ehvi import Ehvi
from nasjax.tactics.full import Full
from nasjax.tactics.problem import Measured, Problem, Tactic
from nasjax.tactics.random import Random

TACTICS: dict[str, type[Tactic]] = {"random": Random, "full": Full, "concurrent": Concurrent, "ehvi": Ehvi}
"""Every tactic by name."""

__all__ = ["TACTICS", "Concurrent", "Ehvi", "Full", "Measured", "Problem", "Random", "Tactic"]
