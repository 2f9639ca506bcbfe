"""Compiles what a tactic's next step needs in a thread, while the programs of the first evaluations compile."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np

from nasjax.evaluation import Halving, PopulationEvaluator
from nasjax.evaluation.base import Evaluator
from nasjax.host import processors
from nasjax.jax_defaults import with_jax_defaults
from nasjax.tactics import Problem, Tactic
from nasjax.types import Population

LOG = logging.getLogger(__name__)


def worthwhile(evaluator: Evaluator) -> bool:
    """Whether there is compiling to do side by side, and nothing is timed, which this would disturb."""
    return processors() > 1 and isinstance(evaluator, PopulationEvaluator | Halving)


@contextmanager
def rehearsed(tactic: Tactic, problem: Problem, state: Any, archs: Population) -> Iterator[None]:
    """While the block runs, tells a copy of the tactic made-up values of `archs` and asks it; what comes of it is dropped.

    States are values, so that the search's own does not change.
    """
    thread = Thread(target=_rehearse, args=(tactic, problem, state, archs), name="rehearsal")
    thread.start()
    try:
        yield
    finally:
        thread.join()  # A process that ends while XLA compiles crashes, and two threads would compile a program twice.


@with_jax_defaults
def _rehearse(tactic: Tactic, problem: Problem, state: Any, archs: Population) -> None:
    """One step on values that are better than the reference, none of which dominates another."""
    reference = np.append(problem.reference, np.zeros(len(problem.limits) - len(problem.reference)))
    steps = np.arange(1.0, len(archs) + 1) / (len(archs) + 1)
    values = np.stack([low - (steps if i % 2 else 1 - steps) for i, low in enumerate(reference)], axis=1)
    try:
        tactic.ask(tactic.tell(state, archs, values))
    except Exception as error:  # The search itself meets what there is to meet.
        LOG.debug("rehearsal: %s", error)
