"""Progress of long work on the error output: a bar on a terminal and in a notebook, else plain lines."""

import sys
from collections.abc import Generator, Mapping
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nasjax.searches.steps import Progress as SearchProgress

Result = TypeVar("Result")


class ProgressBar:
    """Progress on the error output: a bar on a terminal, else (or with a `label`) a plain line for each update.

    `things` names what is counted, `value` the number shown beside the count. Used in a `with` statement.
    """

    def __init__(self, things: str, value: str, planned: int | None = None, label: str = ""):
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[name]} {task.fields[value]}"))
        console = Console(stderr=True)
        self._plain = bool(label) or not (sys.stderr.isatty() or console.is_jupyter)
        self._prefix = f"{label}: " if label else ""
        # Drawn at updates only: a thread that redraws the bar would disturb what is timed.
        self._bar = Progress(
            *(TextColumn("{task.description}"), *columns, TimeRemainingColumn()),
            console=console,
            disable=self._plain,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(things, total=planned, name=value, value="…")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, planned: int, value: float, others: Mapping[str, float] | None = None) -> None:
        """Shows that `done` of `planned` are finished, the value, and others by name."""
        shown = "".join(f", {name} {other:.4g}" for name, other in (others or {}).items())
        self._bar.update(self._task, completed=done, total=planned, value=f"{value:.5g}{shown}", refresh=True)
        if self._plain:
            task = self._bar.tasks[0]
            left = task.time_remaining
            remaining = "" if left is None else f", {timedelta(seconds=round(left))} left"
            line = f"{self._prefix}{done}/{planned}, {task.fields['name']} {value:.5g}{shown}{remaining}"
            print(line, file=sys.stderr, flush=True)

    def print(self, line: str) -> None:
        """Prints a line above the bar."""
        self._bar.console.print(f"{self._prefix}{line}", markup=False, highlight=False, soft_wrap=True)


def run_with_progress(steps: Generator[SearchProgress, None, Result], planned: int, label: str = "") -> Result:
    """Runs a search to its end under a progress bar, and returns its result; see `ProgressBar` for the `label`."""
    waiting = 0
    with ProgressBar("evaluations", "hypervolume", planned, label) as bar:
        while True:
            try:
                now = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            if not now.waiting:
                bar.update(now.done, now.planned, now.hypervolume)
            elif now.waiting != waiting:
                bar.print(f"waiting for {now.waiting} networks that other runs on this archive are measuring")
            waiting = now.waiting
