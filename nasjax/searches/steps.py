"""The steps of a search: a tactic asks, the archive or the evaluator answers, the tactic is updated and its state saved."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from nasjax.objectives import Goals
from nasjax.pareto import hypervolume_exact
from nasjax.runs.archive import Archive, FitRow
from nasjax.searches.history import History
from nasjax.searches.measure import measuring
from nasjax.searches.problem import SearchProblem
from nasjax.searches.rehearsal import rehearsed, worthwhile
from nasjax.searches.tactic_state import dump_state, load_state
from nasjax.searches.time_spent import TimeSpent
from nasjax.tactics import Fit, Measured, PopDB, Problem, Random, Reduced, Tactic, Warm, restrict
from nasjax.types import Population, PRNGKey

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """What a search does before and after its evaluations: `done` of `planned` are measured.

    `part`, as in the times of a run: "latency table" (programs, the last of which took `value` ms; NaN: it failed),
    "proxies" (networks, the last of which has the score `value`), or "test" (networks of the front, on test data).
    """

    part: str
    done: int
    planned: int
    value: float = np.nan


@dataclass(frozen=True)
class Progress:
    """How far a search is: evaluations made (`done`), planned and failed, the hypervolume so far, and the run folder.

    `waiting` counts networks that other runs on the same archive are measuring while this one has nothing else to do.
    `newest` and `best` have the value of each objective by name, in its own sign and unit: of the last evaluation, and the
    best of those within the constraints; NaN where there is none. `gain` is by how many per cent the hypervolume has grown
    since the first evaluations (`gain`). `settings` are those that the run folder records.
    `phase` says what is done besides evaluations (None: nothing); before these, nothing else is known.
    """

    done: int
    planned: int
    failed: int
    hypervolume: float
    folder: Path | None
    waiting: int = 0
    newest: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    gain: float = np.nan
    settings: Mapping[str, Any] = field(default_factory=dict)
    phase: Phase | None = None


FIRST = 10
"""Evaluations that the gain of a search is counted from."""


def gain(objectives: Float[np.ndarray, "evaluations obj"]) -> float:
    """By how many per cent the hypervolume has grown since the first FIRST rows, in respect of the worst values among these.

    The reference point that is reported is the worst thing imaginable, and beside it whole searches look small. NaN before
    there are FIRST rows, and where they dominate nothing. NaN rows do not count.
    """
    first = objectives[:FIRST]
    valid = first[~np.isnan(first).any(1)]
    if len(first) < FIRST or not len(valid):
        return np.nan
    before, now = (hypervolume_exact(rows, valid.max(0)) for rows in (first, objectives))
    return 100 * (now / before - 1) if before > 0 else np.nan


@dataclass(frozen=True, eq=False)
class OpenSearch:
    """A search with its archive open: `problem` as evaluators see it, `tactic_problem` as tactics see it."""

    problem: SearchProblem
    goals: Goals
    tactic_problem: Problem
    archive: Archive
    folder: Path | None
    spent: TimeSpent
    record: Mapping[str, Any]

    def history(self, first: int = 0, over: bool = False) -> History:
        """The evaluations that the archive has of this run, from position `first` on."""
        return History(self.problem, self.goals, self.archive.evaluations(first), over)

    def progress(self, values: Float[np.ndarray, "evaluations columns"], waiting: int) -> Progress:
        """The progress after evaluations with these values (minimised)."""
        failed = int(np.isnan(values).any(1).sum())
        kept, goals = self.goals.feasible(values), self.goals.objectives
        return Progress(
            done=len(values),
            planned=self.tactic_problem.evaluations,
            failed=failed,
            hypervolume=hypervolume_exact(kept, self.goals.reference),
            folder=self.folder,
            waiting=waiting,
            newest={goal.name: goal.sign * float(values[-1, i]) if len(values) else np.nan for i, goal in enumerate(goals)},
            best={goal.name: goal.sign * float(np.fmin.reduce(kept[:, i], initial=np.nan)) for i, goal in enumerate(goals)},
            gain=gain(kept),
            settings=self.record,
        )

    def fit_rows(self, fits: Sequence[Fit]) -> list[FitRow]:
        """The cross-validated errors of the predictors that a step fitted, as the archive stores them."""
        return [(self.goals.columns[fit.column].name, *fit[1:]) for fit in fits]


def tactic_steps(
    search: OpenSearch,
    tactic: Tactic,
    state: Any,
    evaluations: int,
    first: int = 0,
    lift: Callable[[Population], Population] = np.asarray,
) -> Iterator[Progress | None]:
    """Asks, measures and tells until there are `evaluations` or the space is exhausted.

    Yields after every chunk, and None before a step is measured, so that a search whose time is over ends there.

    The tactic begins after the `first` evaluations with `state`, or with the saved state of an interrupted run. `lift` maps
    its architectures to those of the whole search space.
    """
    archive, evaluator, spent = search.archive, search.problem.evaluator, search.spent
    step, told = 0, first
    saved = archive.state()
    if saved is not None and saved[1] >= evaluations and evaluations < search.tactic_problem.evaluations:
        return  # An interrupted run was beyond this part of the search.
    if saved is not None and saved[1] > first:
        step, told = saved[0], saved[1]
        with archive.naming_damage():
            state = load_state(state, saved[2])
    context = archive.add_context(evaluator.context)
    known = search.history().values[:told]
    rehearse = worthwhile(evaluator)
    while told < evaluations:
        with spent.on("tactic"):
            archs, state = tactic.ask(state)
        archs = np.asarray(archs)[: evaluations - told]
        if not len(archs):
            return
        yield None
        fits = search.fit_rows(getattr(state, "fits", ()))
        lifted = np.asarray(lift(archs))
        archive.discard_interrupted_step(told, context, lifted)
        positions = range(told, told + len(archs))
        another = told + len(archs) < evaluations
        beside = rehearsed(tactic, search.tactic_problem, state, archs) if rehearse and another else nullcontext()
        rehearse = False
        with beside:
            for waiting in measuring(evaluator, archive, context, lifted, spent, positions, step):
                new = search.history(told).values
                values = np.concatenate([known, new])
                yield search.progress(values, waiting)
        with spent.on("tactic"):
            state = tactic.tell(state, archs, new)
        step, told, known = step + 1, told + len(archs), values
        with spent.on("archive"):
            archive.save_state(step, told, dump_state(state), fits)


def reduced_steps(search: OpenSearch, tactic: Tactic, reduction: PopDB, key: PRNGKey) -> Iterator[Progress | None]:
    """Evaluates a random sample, reduces the search space by it, and runs the tactic on the reduced space.

    A warm start with enough values takes the place of the sample.
    """
    whole = search.tactic_problem
    empty = Measured.empty(jax.random.fold_in(key, 1), whole)
    sample, warm = 0, whole.warm
    if warm is None or not reduction.has_enough_values(warm):
        sample = reduction.sample
        yield from tactic_steps(search, Random(sample), empty, sample)
        history = search.history()
        warm = Warm(history.archs[:sample], history.values[:sample])
    reduced = _reduced_space(search, reduction, key, empty.add(warm.archs, warm.values))
    state = tactic.init(key, restrict(whole, reduced))
    archs, inside = reduced.to_reduced(warm.archs)
    if sample and inside.any():
        state = tactic.tell(state, archs[inside], warm.values[inside])
    yield from tactic_steps(search, tactic, state, whole.evaluations, sample, reduced.to_full)


def _reduced_space(search: OpenSearch, reduction: PopDB, key: PRNGKey, measured: Measured) -> Reduced:
    """The reduced space of an interrupted run where the archive has one, else a new one, which is saved."""
    options = search.archive.reduction()
    if options is not None:
        return Reduced(search.tactic_problem.space, options)
    LOG.info("popdb: reducing the search space …")  # Takes minutes.
    with search.spent.on("tactic"):
        reduced, fits = reduction.reduce(key, measured)
    search.archive.save_fits(-1, search.fit_rows(fits))  # Step -1: the tactic's own steps begin at 0.
    search.archive.save_reduction(reduced.options)
    return reduced
