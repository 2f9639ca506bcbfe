"""The host loop: a tactic asks, the archive knows or the evaluator measures, the tactic is told; runs and resumes."""

import io
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nasjax.algorithms import ALGORITHMS
from nasjax.archive import Archive, check_archive, digest
from nasjax.measure import measuring
from nasjax.objectives import Objective, parse_objectives, reference_point
from nasjax.pareto import hypervolume_exact
from nasjax.predictors import PREDICTORS, Inputs
from nasjax.results import Front, finish, objective_values
from nasjax.runs import RunFolder, check_seed, run_folder
from nasjax.subject import Measurable, Subject, subject
from nasjax.supernets import SuperNet
from nasjax.tables import record, settings
from nasjax.tactics import TACTICS, Problem, Tactic
from nasjax.tasks import ImageClassification
from nasjax.types import PRNGKey


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
    tactic: Any = "concurrent",
    algorithm: Any = "nsga2",
    predictor: Any = "ridge",
    evaluator: Any = "masked",
    evaluations: int = 128,
    seed: int = 0,
    references: Mapping[str, float] | None = None,
    run: str | Path | None = None,
    archive: str | Path | None = None,
    minutes: float | None = None,
) -> Generator[Progress, None, Front]:
    """Searches step by step: yields after every chunk of measurements, returns the `Front`.

    `tactic`, `algorithm`, `predictor`, `evaluator`: a name, a mapping with `name` and settings, or settings. `references`
    replaces the hypervolume's reference of objectives. `run` is the folder to write or to take up again (None: nothing is
    written); `archive` a file of measurements shared with other runs (None: the run's own). After `minutes` nothing more is
    begun (0: only what is known is written, nothing measured). Raises ValueError for what a person can put right.
    """
    if minutes is not None and minutes < 0:
        raise ValueError(f"minutes must be at least 0, not {minutes}")
    if evaluations < 1:
        raise ValueError(f"evaluations must be at least 1, not {evaluations}")
    check_seed(seed)
    if archive is not None:
        archive = Path(archive).absolute()
        check_archive(archive)
    tactic = settings("tactic", TACTICS, tactic)
    algorithm = settings("algorithm", ALGORITHMS, algorithm)
    predictor = settings("predictor", PREDICTORS, predictor)
    about = subject(net, task, evaluator)
    goals = parse_objectives(objectives, about.ranges, references or {})
    written = {
        "objectives": list(objectives),
        "references": dict(references or {}),
        "evaluations": evaluations,
        "seed": seed,
        "tactic": record(TACTICS, tactic),
        "algorithm": record(ALGORITHMS, algorithm),
        "predictor": record(PREDICTORS, predictor),
        **about.origin,
        "archive": archive,
    }
    costs = tuple(_cost(about, goal) for goal in goals)
    inputs = Inputs(about.space, about.costs["macs"].by_unit if "macs" in about.costs else None)
    problem = Problem(
        about.space, evaluations, costs, algorithm, predictor, reference_point(goals), inputs, about.rows, about.repair
    )
    context = digest(about.evaluator.context)
    held = nullcontext(RunFolder(None, "run")) if run is None else run_folder(Path(run), written, context)
    with held as folder:
        path = folder.path
        place = archive or (path and path / "archive.db")
        store = Archive(place, folder.id)
        try:
            began = time.monotonic()
            steps = _steps(about, goals, problem, tactic, store, jax.random.key(seed), path)
            complete = False
            while minutes is None or time.monotonic() - began < 60 * minutes:
                now = next(steps, None)
                complete = now is None
                if now is None:
                    break
                yield now
            spent = time.monotonic() - began
            return finish(about, goals, store, path, written, spent, complete, test=minutes != 0)
        finally:
            store.close()


def _cost(about: Subject, goal: Objective) -> Any:
    """The jittable function of an objective that is computed, minimised; None where it is measured."""
    if goal.name not in about.costs:
        return None
    return lambda archs: goal.sign * about.costs[goal.name].estimate(archs)


def _steps(
    about: Subject,
    goals: Sequence[Objective],
    problem: Problem,
    tactic: Tactic,
    store: Archive,
    key: PRNGKey,
    folder: Path | None,
) -> Iterator[Progress]:
    """Asks, measures and tells until the budget is spent or the space exhausted; every chunk and every state is stored."""
    state = tactic.init(key, problem)
    saved = store.state()
    step, told = 0, 0
    if saved is not None:
        step, told = saved[0], saved[1]
        state = _restored(state, saved[2])
    context = store.describe(about.evaluator.context)
    reference = reference_point(goals)
    known = objective_values(about, goals, store.evaluations()[:told])
    while told < problem.evaluations:
        archs, state = tactic.ask(state)
        archs = np.asarray(archs)[: problem.evaluations - told]
        if not len(archs):
            return
        store.forget(told, context, archs)
        for waiting in measuring(about.evaluator, store, context, archs, range(told, told + len(archs)), step):
            new = objective_values(about, goals, store.evaluations(told))
            values = np.concatenate([known, new])
            failed = int(np.isnan(values).any(1).sum())
            volume = hypervolume_exact(values, reference)
            yield Progress(len(values), problem.evaluations, failed, volume, folder, waiting)
        state = tactic.tell(state, archs, new)
        step, told, known = step + 1, told + len(archs), values
        store.save_state(step, told, _dumped(state))


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
