"""Progress of long work on the error output, a bar on a terminal and in a notebook, else plain lines; and to a tracker."""

import sys
from collections.abc import Generator, Mapping
from datetime import timedelta
from functools import cache
from importlib.util import find_spec
from typing import TypeVar

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nasjax.generators import mapped, result_of
from nasjax.program_cache import take_first_folder
from nasjax.program_counts import expected_programs, keep_programs
from nasjax.runs.folder import read_settings
from nasjax.searches.front import Front
from nasjax.searches.steps import Progress as SearchProgress
from nasjax.trackers import Tracking
from nasjax.verbosity import is_quiet
from nasjax.words import plural

Result = TypeVar("Result")

LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
"""JAX's event for a program that has been lowered: XLA compiles it next, or its result is read from the cache."""

COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's event for a program that is compiled, or read from the cache."""

LARGE = 1.0
"""Seconds of lowering from which on a program is announced by a line of its own: it may take XLA from seconds to minutes."""

QUIET = 5.0
"""Seconds of compiling without a line, after which the next program is announced, however small."""

_compiled: set[str] = set()
"""The commands that have ended in this process: later ones share their programs, and compile fewer than in a new process."""


@cache
def _bars() -> list["ProgressBar"]:
    """The bars in use, which show every program that JAX compiles."""
    bars: list[ProgressBar] = []

    def count(event: str, duration_secs: float, **named: str | int) -> None:
        for bar in bars:
            if event == LOWERED:
                bar.compiles(duration_secs, str(named.get("fun_name", "")))
            elif event == COMPILED:
                bar.compiled(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(count)
    return bars


class ProgressBar:
    """Progress on the error output: a bar on a terminal, else (or with a `label`) a plain line for each update.

    `things` names what is counted, `value` the number shown beside the count. Commands of the same `kind` compile about as
    many programs: how many is kept, and announced by the next. Used in a `with` statement. Nothing is shown within
    `quietly`.
    """

    def __init__(self, things: str, value: str, planned: int | None = None, label: str = "", kind: str = ""):
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[name]} {task.fields[value]}"))
        console = Console(stderr=True)
        in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None  # rich draws nothing without it.
        quiet = is_quiet()
        self._plain = not quiet and (bool(label) or not (sys.stderr.isatty() or in_notebook))
        self._prefix = f"{label}: " if label else ""
        self._kind = kind
        # Drawn at updates only: a thread that redraws the bar would disturb what is timed.
        self._bar = Progress(
            *(TextColumn("{task.description}"), *columns, TimeRemainingColumn()),
            console=console,
            disable=quiet or self._plain,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(things, total=planned, name=value, value="…")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        self._compiling, self._programs = 0.0, 0
        if self._kind.partition(" ")[0] in _compiled:
            self._kind = ""
        self._expected = expected_programs(self._kind) if self._kind else None
        _bars().append(self)
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        _bars().remove(self)
        self._bar.stop()
        if self._kind and failure is None:
            _compiled.add(self._kind.partition(" ")[0])
            keep_programs(self._kind, self._programs)

    def compiles(self, lowering: float, name: str = "") -> None:
        """Announces a program that XLA is about to compile, or to read from the cache; `lowering` took so many seconds.

        Plain lines leave out small programs, unless QUIET seconds of compiling have passed without a line.
        """
        if self._plain and lowering < LARGE and self._compiling < QUIET:
            return
        self._compiling = 0.0
        name = name.removeprefix("jit(").removesuffix(")")
        if folder := take_first_folder():
            self.print(f"compiled programs are kept in {folder}: the next search does not compile them again")
        number = self._programs + 1
        of = f" of about {self._expected}" if self._expected and number <= self._expected else ""
        self.say(f"compiling {name} (program {number}{of})…".replace("  ", " "))

    def compiled(self, seconds: float) -> None:
        """Counts a program that has been compiled, or read from the cache."""
        self._programs += 1
        self._compiling += seconds

    def count(self, things: str, value: str) -> None:
        """Counts these things from now on, from 0, with this value beside the count."""
        if self._bar.tasks[0].description != things:
            self._bar.reset(self._task, description=things, name=value, value="…")

    def say(self, text: str) -> None:
        """Shows a text in the place of the value, or as a line."""
        if self._plain:
            print(f"{self._prefix}{text}", file=sys.stderr, flush=True)
        else:
            self._bar.update(self._task, value=text, refresh=True)

    def update(
        self, done: int, planned: int, value: float, others: Mapping[str, float] | None = None, note: str = ""
    ) -> None:
        """Shows that `done` of `planned` are finished, the value with a note on it, and others by name."""
        self._compiling = 0.0
        shown = note + "".join(f", {name} {other:.4g}" for name, other in (others or {}).items())
        self._bar.update(self._task, completed=done, total=planned, value=f"{value:.5g}{shown}", refresh=True)
        if self._plain:
            task = self._bar.tasks[0]
            left = task.time_remaining
            remaining = "" if left is None else f", {timedelta(seconds=round(left))} left"
            line = f"{self._prefix}{done}/{planned}, {task.fields['name']} {value:.5g}{shown}{remaining}"
            print(line, file=sys.stderr, flush=True)

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        if is_quiet():
            return
        self._bar.console.print(f"{self._prefix}{line}", markup=False, highlight=False, soft_wrap=True)


COUNTED = {"latency table": ("timed", "ms"), "proxies": ("scored", "score")}
"""What is counted in these phases of a search, and the value beside the count."""


def run_with_progress(
    steps: Generator[SearchProgress, None, Result], planned: int, label: str = "", kind: str = ""
) -> Result:
    """Runs a search to its end under a progress bar, and returns its result; see `ProgressBar` for `label` and `kind`."""
    waiting = 0

    def show(now: SearchProgress) -> None:
        nonlocal waiting
        if now.waiting:
            if now.waiting != waiting:
                bar.print(f"waiting for {plural(now.waiting, 'network')} that other runs on this archive are measuring")
        elif now.phase is None:
            bar.count("evaluations", "hypervolume")
            note = f" (+{now.gain:.0f} %)" if now.gain >= 0 else ""
            bar.update(now.done, now.planned, now.hypervolume, note=note)
        elif now.phase.part == "test":
            bar.say(f"test data: {now.phase.done} of {plural(now.phase.planned, 'network')}")
        else:
            bar.count(*COUNTED[now.phase.part])
            bar.update(now.phase.done, now.phase.planned, now.phase.value)
        waiting = now.waiting

    with ProgressBar("evaluations", "hypervolume", planned, label, kind) as bar:
        return result_of(steps, show)


FILES = ("front.png", "hypervolume.png", "report.html")
"""The files of a run folder that a tracker gets."""


def tracked(steps: Generator[SearchProgress, None, Result], tracking: Tracking) -> Generator[SearchProgress, None, Result]:
    """The steps of a search, each told to a tracker: evaluations, hypervolume, the newest and best of every objective."""

    def log(now: SearchProgress) -> SearchProgress:
        if not now.waiting and now.phase is None:
            metrics = {"evaluations": now.done, "failed": now.failed, "hypervolume": now.hypervolume}
            newest = {f"newest/{name}": value for name, value in now.newest.items()}
            best = {f"best/{name}": value for name, value in now.best.items()}
            tracking.log(now.done, metrics | newest | best, now.settings)
        return now

    return mapped(steps, log)


def finish_tracking(tracking: Tracking, front: Front) -> None:
    """Gives a tracker the front as a table, and figures and report of the run folder, where there is one.

    Of a search that measured nothing more, too, such as one that is repeated with another tracker.
    """
    if not tracking.active:
        return
    folder, done = front.folder, len(front.evaluations["index"])
    settings = {} if folder is None else read_settings(folder)
    if len(front):
        best = {f"best/{goal.name}": goal.sign * (goal.sign * front.metrics[goal.name]).min() for goal in front.objectives}
        tracking.log(done, {"evaluations": done, "hypervolume": front.hypervolume, **best}, settings)
    tracking.finish({"front": front.table()}, [] if folder is None else [folder / name for name in FILES], settings)
