"""Search tactics: the outer loop of a search, which decides what to measure next."""

from nasjax.tactics.base import Fit, Measured, Problem, Scores, Tactic, Warm
from nasjax.tactics.concurrent import Concurrent
from nasjax.tactics.ehvi import Ehvi
from nasjax.tactics.estimations import FullOnEstimations
from nasjax.tactics.full import Full
from nasjax.tactics.popdb import REDUCTIONS, PopDB, Reduced, restrict
from nasjax.tactics.proxy import Proxy
from nasjax.tactics.random import Random
from nasjax.tactics.weaknas import WeakNAS

TACTICS: dict[str, type[Tactic]] = {
    "random": Random,
    "full": Full,
    "full_on_estimations": FullOnEstimations,
    "concurrent": Concurrent,
    "weaknas": WeakNAS,
    "proxy": Proxy,
    "ehvi": Ehvi,
}
"""Tactics by name, as in `tactic=NAME`."""

UNREAD: dict[str, tuple[str, ...]] = {
    "random": ("algorithm", "predictor"),
    "full": ("predictor",),
    "weaknas": ("algorithm",),
    "proxy": ("predictor",),
}
"""The groups that a tactic does not read in a space that is not reduced: searches that differ in these alone are one."""

__all__ = [
    "REDUCTIONS",
    "TACTICS",
    "UNREAD",
    "Concurrent",
    "Ehvi",
    "Fit",
    "Full",
    "FullOnEstimations",
    "Measured",
    "PopDB",
    "Problem",
    "Proxy",
    "Random",
    "Reduced",
    "Scores",
    "Tactic",
    "Warm",
    "WeakNAS",
    "restrict",
]
