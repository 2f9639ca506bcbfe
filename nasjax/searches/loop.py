"""A search from its arguments to its Pareto front: settings, run folder and archive, steps, results."""

import logging
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from nasjax.algorithms import Algorithm
from nasjax.evaluation import EvaluatorSetting
from nasjax.generators import mapped
from nasjax.hardware.profile import Hardware, Profile, check_energy
from nasjax.hardware.profiling import ProfilingProgress
from nasjax.jax_defaults import with_jax_defaults
from nasjax.predictors import Predictor
from nasjax.runs.archive import Archive, digest
from nasjax.runs.folder import RunFolder, run_folder
from nasjax.searches.front import Front, front_of
from nasjax.searches.history import History
from nasjax.searches.measure import measuring
from nasjax.searches.problem import SelfMeasuring, profiling_for, search_problem, timed_problem
from nasjax.searches.proxy_scores import Scoring, with_proxies
from nasjax.searches.result_files import write_results, write_unfinished
from nasjax.searches.settings import SearchSettings, check_settings
from nasjax.searches.steps import OpenSearch, Phase, Progress, reduced_steps, tactic_steps
from nasjax.searches.tactic_problem import posed
from nasjax.searches.time_spent import TimeSpent
from nasjax.supernets import SuperNet
from nasjax.tactics import PopDB, Tactic
from nasjax.tasks import Task

LOG = logging.getLogger(__name__)

MOST_TIME = 0.05
"""The greatest share of a search's time that writing its results so far takes."""

LEAST_PAUSE = 1.0
"""Seconds between two writings of the results so far, at least."""


@with_jax_defaults
def searching(
    net: SuperNet | SelfMeasuring,
    task: Task | None = None,
    *,
    objectives: Sequence[str] = ("accuracy_top1", "macs"),
    constraints: Sequence[str] = (),
    tactic: str | Mapping[str, Any] | Tactic = "ehvi",
    algorithm: str | Mapping[str, Any] | Algorithm = "nsga2",
    predictor: str | Mapping[str, Any] | Predictor = "gaussian_process",
    evaluator: EvaluatorSetting = "auto",
    hardware: Hardware | Profile | None = None,
    evaluations: int = 128,
    seed: int = 0,
    references: Mapping[str, float] | None = None,
    run: str | Path | None = None,
    archive: str | Path | None = None,
    warm_start: str | Path | None = None,
    proxies: Sequence[str] = (),
    space_reduction: str | Mapping[str, Any] | PopDB | None = None,
    minutes: float | None = None,
    tactic_device: str | None = None,
    spent: TimeSpent | None = None,
) -> Generator[Progress, None, Front]:
    """Searches step by step: yields `Progress` after every chunk of measurements, returns the `Front`.

    Also yields while hardware is profiled and while the front is measured on test data (`Progress.phase`).

    `tactic`, `algorithm`, `predictor`, `evaluator`, `hardware` and `space_reduction` are a name, a mapping with `name` and
    settings, or a settings object.

    - `objectives`: names, or `max:name` and `min:name` for names without a known direction.
    - `constraints`: `name<=number` or `name>=number`; every network of the front keeps them.
    - `evaluator`: how accuracy is measured. `hardware`: what sub-networks are timed on; `latency` is then predicted within
      the search, and measured for every network that is evaluated.
    - `evaluations`: the budget; a measurement found in the archive counts, too. `seed` decides all random choices.
    - `references`: the reference point of the hypervolume by objective, where it is not the default.
    - `run`: the run folder, which is made, or resumed where it exists (None: nothing is written).
    - `archive`: a file of measurements that several runs may share (None: the run's own).
    - `warm_start`: earlier searches to begin from: a run folder or a folder of several, a table, an archive, or a result CSV
      of DyNAS-T.
    - `proxies`: cheap scores that predictors read: 128 random networks are scored by each first (`synflow`, `jacobian`).
    - `space_reduction`: how the search space is made smaller before the tactic begins (`popdb`).
    - `minutes`: time after which nothing more is measured (0: only the results of what is known are written).
    - `tactic_device`: `cpu` for a tactic that runs there, predictors included (None: where JAX chooses).
    - `spent`: counts the time of parts, those before the search included (None: only the search counts).

    Of several processes the first one calls this, the others call `nasjax.follow`. Raises ConfigError for invalid settings.
    """
    settings = check_settings(
        objectives=objectives, constraints=constraints, references=references, evaluations=evaluations, seed=seed,
        tactic=tactic, algorithm=algorithm, predictor=predictor, space_reduction=space_reduction, warm_start=warm_start,
        proxies=proxies, run=run, archive=archive, minutes=minutes, tactic_device=tactic_device,
    )  # fmt: skip
    check_energy((*settings.objectives, *settings.constraints), hardware)
    spent = spent or TimeSpent()
    with spent.on("set-up"):
        problem = search_problem(net, task, evaluator, settings.evaluations)
    if hardware is not None:
        with nullcontext() if isinstance(hardware, Profile) else spent.on("latency table"):
            profile = yield from _profiled(net, task, hardware, settings.evaluations)
        problem = timed_problem(problem, profile)
    with problem.leading():
        goals, for_tactic = posed(settings, problem, net)
        if settings.proxies:
            with spent.on("proxies"):
                for_tactic = yield from mapped(with_proxies(for_tactic, settings.proxies), partial(_scoring, evaluations))
        for_tactic = replace(for_tactic, fitting=lambda: spent.on("predictors"))
        key = jax.random.key(settings.seed)
        # Tactic and reduction refuse an unsuitable problem before anything is written.
        placed = settings.placed_tactic()
        state = placed.init(key, for_tactic)
        if settings.space_reduction is not None:
            settings.space_reduction.check(for_tactic)
        record = settings.record(problem.origin)
        with _opened(settings, record, digest(problem.identity)) as (folder, store):
            if warning := problem.warning(column.name for column in goals.columns):
                LOG.warning(warning)
            search = OpenSearch(problem, goals, for_tactic, store, folder, spent, record)
            if settings.space_reduction is None:
                steps = tactic_steps(search, placed, state, settings.evaluations)
            else:
                steps = reduced_steps(search, placed, settings.space_reduction, key)
            complete = yield from _within_minutes(_keeping_results(search, record, steps), settings.minutes)
            return (yield from _finish(search, record, complete, test=settings.minutes != 0))


def _profiled(
    net: SuperNet | SelfMeasuring, task: Task | None, hardware: Hardware | Profile, planned: int
) -> Generator[Progress, None, Profile]:
    """The profile of the super-network; yields after every program that was timed."""

    def progress(now: ProfilingProgress) -> Progress:
        phase = Phase("latency table", now.done, now.planned, now.milliseconds)
        return Progress(0, planned, 0, 0.0, None, phase=phase)

    return (yield from mapped(profiling_for(net, task, hardware), progress))


def _scoring(planned: int, now: Scoring) -> Progress:
    return Progress(0, planned, 0, 0.0, None, phase=Phase("proxies", now.done, now.planned, now.last))


@contextmanager
def _opened(settings: SearchSettings, record: Mapping[str, Any], context: str) -> Iterator[tuple[Path | None, Archive]]:
    """The run folder, locked, and the archive, open until the block ends; without either the archive is in memory."""
    nothing = nullcontext(RunFolder(None, uuid.uuid4().hex))
    with nothing if settings.run is None else run_folder(settings.run, record, context) as folder:
        file = settings.archive or (folder.path and folder.path / "archive.db")
        with closing(Archive(file, folder.id)) as archive:
            yield folder.path, archive


def _keeping_results(
    search: OpenSearch, record: Mapping[str, Any], steps: Iterator[Progress | None]
) -> Iterator[Progress | None]:
    """The steps of a search. Where it has a run folder, the results so far are written into it meanwhile: before the first
    step, after chunks, as often as MOST_TIME and LEAST_PAUSE allow, and before the front is measured on test data."""
    folder = search.folder
    if folder is None:
        yield from steps
        return

    def write() -> float:
        began = time.monotonic()
        with search.spent.on("results"):
            write_unfinished(folder, search.history(), search.archive, record, search.spent.seconds())
        return time.monotonic() - began

    write()
    due, written = 0.0, 0
    for progress in steps:
        if progress is not None and progress.done != written and time.monotonic() >= due:
            took, written = write(), progress.done
            due = time.monotonic() + max(LEAST_PAUSE, took / MOST_TIME)
        yield progress
    if search.problem.test is not None:
        write()


def _within_minutes(steps: Iterator[Progress | None], minutes: float | None) -> Generator[Progress, None, bool]:
    """Yields the progress of `steps` until they end or the time is over; returns whether they ended."""
    began = time.monotonic()
    while minutes is None or time.monotonic() - began < 60 * minutes:
        try:
            progress = next(steps)
        except StopIteration:
            return True
        if progress is not None:
            yield progress
    return False


def _finish(search: OpenSearch, record: Mapping[str, Any], complete: bool, test: bool) -> Generator[Progress, None, Front]:
    """The front, measured on test data with `test`; its files are written where there is a run folder.

    `complete`: the budget was spent, or the space exhausted.
    """
    history = search.history(over=True)
    best = history.front()
    on_test = (yield from _measured_on_test(search, history, history.archs[best])) if test else {}
    with search.spent.on("results"):
        front = front_of(history, best, on_test, search.folder)
    if search.folder is not None:
        write_results(search.folder, history, front, search.archive, record, search.spent.seconds(), complete)
    return front


def _measured_on_test(
    search: OpenSearch, history: History, archs: Int[np.ndarray, "networks genes"]
) -> Generator[Progress, None, dict[str, np.ndarray]]:
    """`test_…` of every measured metric, found in the archive or measured and stored there; empty without test data.

    Yields before the first chunk and after each.
    """
    if search.problem.test is None or not len(archs):
        return {}
    evaluator, archive = search.problem.test(), search.archive
    context = archive.add_context(evaluator.context)

    def progress(waiting: int) -> Progress:
        known = sum(metrics is not None for metrics in archive.find(context, archs))
        return replace(search.progress(history.values, waiting), phase=Phase("test", known, len(archs)))

    yield progress(0)
    for waiting in measuring(evaluator, archive, context, archs, search.spent, part="test"):
        yield progress(waiting)
    rows = [metrics for metrics in archive.find(context, archs) if metrics is not None]
    return {f"test_{name}": np.array([row[name] for row in rows]) for name in rows[0]}
