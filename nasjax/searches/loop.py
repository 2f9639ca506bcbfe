"""The host loop: a tactic asks, the archive knows or the evaluator measures, the tactic is told; runs and resumes."""

import io
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from nasjax.algorithms import ALGORITHMS, Algorithm
from nasjax.errors import ConfigError
from nasjax.hardware.profile import check_energy
from nasjax.objectives import Goals, Objective, listed, parse_constraints, parse_objectives
from nasjax.pareto import hypervolume_exact
from nasjax.predictors import PREDICTORS, Inputs, Predictor
from nasjax.registry import record, settings
from nasjax.runs.archive import Archive, check_archive, digest
from nasjax.runs.folder import RunFolder, check_seed, run_folder
from nasjax.searches.front import Front, architectures, finish, goal_values
from nasjax.searches.measure import measuring
from nasjax.searches.problem import Measurable, SearchProblem, search_problem
from nasjax.searches.warm_start import warm_start as start_from
from nasjax.supernets import SuperNet
from nasjax.tactics import REDUCTIONS, TACTICS, Fit, Measured, PopDB, Problem, Random, Reduced, Tactic, Warm, within
from nasjax.tasks import ImageClassification
from nasjax.types import Population, PRNGKey


@dataclass(frozen=True)
class Progress:
    """How far a search is: evaluations made, planned and failed, the hypervolume so far, and where it is written.

    `waiting` networks are being measured by other runs on the same archive, and nothing else is left to do until they are.
    """

    done: int
    planned: int
    failed: int
    hypervolume: float
    folder: Path | None
    waiting: int = 0


def search(net: SuperNet | Measurable, task: ImageClassification | None = None, **arguments: Any) -> Front:
    """The Pareto front of a super-network's sub-networks. Arguments as for `searching`, which this runs to its end."""
    steps = searching(net, task, **arguments)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def searching(
    net: SuperNet | Measurable,
    task: ImageClassification | None = None,
    *,
    objectives: Sequence[str] = ("accuracy_top1", "macs"),
    constraints: Sequence[str] = (),
    tactic: Any = "ehvi",
    algorithm: Any = "nsga2",
    predictor: Any = "gaussian_process",
    evaluator: Any = "masked",
    hardware: Any = None,
    evaluations: int = 128,
    seed: int = 0,
    references: Mapping[str, float] | None = None,
    run: str | Path | None = None,
    archive: str | Path | None = None,
    warm_start: str | Path | None = None,
    space_reduction: Any = None,
    minutes: float | None = None,
) -> Generator[Progress, None, Front]:
    """Searches step by step: yields after every chunk of measurements, returns the `Front`.

    `tactic`, `algorithm`, `predictor`, `evaluator`, `hardware`: a name, a mapping with `name` and settings, or settings.
    With `hardware` sub-networks are timed too: `latency` is estimated inside the search, and measured for all that is
    evaluated. `constraints` (`macs<=2e5`) are kept by every network of the front. `references` replaces the hypervolume's
    reference of objectives.
    `run` is the folder to write or to take up again (None: nothing is written); `archive` a file of measurements shared with
    other runs (None: the run's own). `warm_start` is an earlier search to begin from (a run folder, a table, an archive);
    `space_reduction` (`popdb`, a mapping or settings) makes the space smaller before the tactic begins. After `minutes`
    nothing more is begun (0: only what is known is written, nothing measured). Of several processes the first one searches,
    the others run `nasjax.follow`. Raises ConfigError for what a person can put right.
    """
    _check(evaluations, minutes, {"run": run, "archive": archive, "warm_start": warm_start})
    objectives, constraints = listed("objectives", objectives), listed("constraints", constraints)
    check_seed(seed)
    if archive is not None:
        archive = Path(archive).absolute()
        check_archive(archive)
    tactic = settings("tactic", TACTICS, tactic)
    algorithm = settings("algorithm", ALGORITHMS, algorithm)
    predictor = settings("predictor", PREDICTORS, predictor)
    reduction = None if space_reduction is None else settings("space_reduction", REDUCTIONS, space_reduction)
    check_energy((*objectives, *constraints), hardware)
    problem = search_problem(net, task, evaluator, hardware)
    with problem.leading():
        goals = Goals(
            parse_objectives(objectives, problem.ranges, references or {}), parse_constraints(constraints, problem.ranges)
        )
        written = {
            "objectives": list(objectives),
            "constraints": list(constraints),
            "references": dict(references or {}),
            "evaluations": evaluations,
            "seed": seed,
            "tactic": record(TACTICS, tactic),
            "algorithm": record(ALGORITHMS, algorithm),
            "predictor": record(PREDICTORS, predictor),
            **problem.origin,
            "archive": archive,
            "warm_start": None if warm_start is None else Path(warm_start).absolute(),
            "space_reduction": reduction and record(REDUCTIONS, reduction),
        }
        warm = None if warm_start is None else start_from(Path(warm_start), problem, goals, net)
        for_tactic = tactic_problem(problem, goals, algorithm, predictor, evaluations, warm)
        # What a tactic refuses it refuses here, before anything is written.
        state = tactic.init(jax.random.key(seed), for_tactic)
        if reduction is not None:
            reduction.check(for_tactic)
        context = digest(problem.identity)
        held = nullcontext(RunFolder(None, uuid.uuid4().hex)) if run is None else run_folder(Path(run), written, context)
        with held as folder:
            path = folder.path
            place = archive or (path and path / "archive.db")
            store = Archive(place, folder.id)
            try:
                began = time.monotonic()
                search = _Search(problem, goals, for_tactic, store, path)
                if reduction is None:
                    steps = _steps(search, tactic, state, evaluations)
                else:
                    steps = _reduced_steps(search, tactic, reduction, jax.random.key(seed))
                complete = False
                while minutes is None or time.monotonic() - began < 60 * minutes:
                    now = next(steps, None)
                    complete = now is None
                    if now is None:
                        break
                    yield now
                spent = time.monotonic() - began
                return finish(problem, goals, store, path, written, spent, complete, test=minutes != 0)
            finally:
                store.close()


def _check(evaluations: Any, minutes: float | None, places: Mapping[str, Any]) -> None:
    """Raises ConfigError for numbers and paths that are none."""
    if minutes is not None and minutes < 0:
        raise ConfigError(f"minutes must be at least 0, not {minutes}")
    if not isinstance(evaluations, Integral) or evaluations < 1:
        raise ConfigError(f"evaluations must be a whole number of at least 1, not {evaluations!r}")
    for name, place in places.items():
        if not isinstance(place, str | Path | None):
            raise ConfigError(f"{name} must be the path of a file or folder, not {place!r}")


def tactic_problem(
    problem: SearchProblem,
    goals: Goals,
    algorithm: Algorithm,
    predictor: Predictor,
    evaluations: int,
    warm: Warm | None = None,
) -> Problem:
    """A search as arrays and functions, as tactics see it."""
    costs = tuple(_cost(problem, column) for column in goals.columns)
    inputs = Inputs(problem.space, problem.costs["macs"].by_unit if "macs" in problem.costs else None)
    return Problem(
        problem.space,
        evaluations,
        costs,
        algorithm,
        predictor,
        goals.reference,
        goals.limits,
        inputs,
        problem.rows,
        problem.repair,
        warm,
        problem.proxies,
    )


@dataclass(frozen=True)
class Cost:
    """A cost, exact or estimated, as what is minimised, jittable; equals are one function: nothing compiles twice."""

    table: Any
    sign: int

    def __call__(self, archs: Population) -> Float[Array, " pop"]:
        return self.sign * self.table.estimate(archs)


def _cost(problem: SearchProblem, goal: Objective) -> Any:
    """The jittable function of an objective that is computed, or estimated well, minimised; None where it is measured."""
    table = problem.costs.get(goal.name) or problem.estimates.get(goal.name)
    return None if table is None else Cost(table, goal.sign)


@dataclass(frozen=True, eq=False)
class _Search:
    """What all steps of one search share."""

    problem: SearchProblem
    goals: Goals
    tactic_problem: Problem
    store: Archive
    folder: Path | None

    def values(self, first: int = 0) -> Float[np.ndarray, "told columns"]:
        """The goals' columns of the evaluations from `first` on."""
        return goal_values(self.problem, self.goals, self.store.evaluations(first))

    def named(self, fits: Sequence[Fit]) -> list[tuple[str, int, float, float, float, str]]:
        """What is kept of fits: objective, rows, mape, rmse, tau, and which predictor where it was chosen."""
        return [(self.goals.columns[fit.column].name, *fit[1:]) for fit in fits]


def _steps(
    search: _Search,
    tactic: Tactic,
    state: Any,
    evaluations: int,
    first: int = 0,
    lift: Callable[[Population], Population] = np.asarray,
) -> Iterator[Progress]:
    """Asks, measures and tells until `evaluations` are made or the space is exhausted; every chunk and state is stored.

    The tactic begins after the `first` evaluations; `lift` turns its architectures into the super-network's.
    """
    goals, store, budget = search.goals, search.store, search.tactic_problem.evaluations
    step, told = 0, first
    saved = store.state()
    if saved is not None and saved[1] >= evaluations and evaluations < budget:
        return  # The tactic of an earlier part, which has ended.
    if saved is not None and saved[1] > first:
        step, told = saved[0], saved[1]
        state = _restored(state, saved[2])
    context = store.describe(search.problem.evaluator.context)
    known = search.values()[:told]
    while told < evaluations:
        archs, state = tactic.ask(state)
        archs = np.asarray(archs)[: evaluations - told]
        if not len(archs):
            return
        store.fitted(step, search.named(getattr(state, "fits", ())))
        lifted = np.asarray(lift(archs))
        store.forget(told, context, lifted)
        for waiting in measuring(search.problem.evaluator, store, context, lifted, range(told, told + len(archs)), step):
            new = search.values(told)
            values = np.concatenate([known, new])
            failed = int(np.isnan(values).any(1).sum())
            volume = hypervolume_exact(goals.feasible(values), goals.reference)
            yield Progress(len(values), budget, failed, volume, search.folder, waiting)
        state = tactic.tell(state, archs, new)
        step, told, known = step + 1, told + len(archs), values
        store.save_state(step, told, _dumped(state))


def _reduced_steps(search: _Search, tactic: Tactic, reduction: PopDB, key: PRNGKey) -> Iterator[Progress]:
    """A random sample (none where a warm start has values), the reduction, then the tactic on what is left of the space."""
    for_tactic, store = search.tactic_problem, search.store
    measured = Measured.nothing(jax.random.fold_in(key, 1), for_tactic)
    first = 0
    if for_tactic.warm is not None and reduction.informed(for_tactic.warm):
        known = for_tactic.warm
    else:
        first = reduction.sample
        yield from _steps(search, Random(first), measured, first)
        rows = store.evaluations()[:first]
        known = Warm(architectures(search.problem, rows), goal_values(search.problem, search.goals, rows))
    options = store.reduction()
    if options is None:
        part, fits = reduction.reduce(key, measured.add(*known))
        options = part.options
        # Before the tactic's own: it begins where the sample ends.
        store.fitted(-1, search.named(fits))
        store.save_reduction(options)
    reduced = Reduced(for_tactic.space, options)
    state = tactic.init(key, within(for_tactic, reduced))
    archs, inside = reduced.lower(known.archs)
    if inside.any() and first:
        state = tactic.tell(state, archs[inside], known.values[inside])
    yield from _steps(search, tactic, state, for_tactic.evaluations, first, reduced.lift)


def _dumped(state: Any) -> bytes:
    """The arrays of a state; keys as their data."""
    file = io.BytesIO()
    leaves = (jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(state))
    np.savez(file, *map(np.asarray, leaves))
    return file.getvalue()


def _restored(state: Any, data: bytes) -> Any:
    """A state of the same tactic with the arrays that were dumped."""
    leaves, structure = jax.tree.flatten(state)
    with np.load(io.BytesIO(data)) as file:
        found = [file[f"arr_{i}"] for i in range(len(leaves))]
    return jax.tree.unflatten(structure, [_like(old, new) for old, new in zip(leaves, found, strict=True)])


def _like(old: Any, new: np.ndarray) -> Any:
    """An array of the kind that the state had: a key, JAX's, or NumPy's."""
    if _is_key(old):
        return jax.random.wrap_key_data(jax.numpy.asarray(new))
    return jax.numpy.asarray(new) if isinstance(old, jax.Array) else new


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
