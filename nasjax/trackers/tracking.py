"""One search or training under a tracker: continues where it was, and without the tracker where that fails."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from nasjax.errors import naming_damage, one_line
from nasjax.host import parse_json, read_text, write_text
from nasjax.runs.folder import flatten_settings, plain_data
from nasjax.trackers.base import Started, Table, TrackedRun, Tracker

MARKS = "tracker.json"
"""The file of a run folder that has, for each tracker, its settings, the id of the tracked run and the last step logged."""


class Tracking:
    """What is tracked of one run. Used in a `with` statement, at the end of which the tracked run is closed.

    A tracker that fails is reported in one line on the error output, and nothing more is tracked: nothing is raised. A run
    that is resumed continues in the same tracked run, and logged steps are not logged again; with other settings of
    the tracker a new one begins. `folder` is the run folder (None: the run has none).
    """

    def __init__(self, tracker: Tracker, folder: str | Path | None):
        self._tracker: Tracker | None = tracker
        self._folder = folder
        self._run: TrackedRun | None = None
        self._step = 0

    @property
    def active(self) -> bool:
        """Whether anything is, or will be, tracked."""
        return self._tracker is not None

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._run is not None:
            self._try(self._run.finish, {}, (), kind is None)

    def log(self, step: int, metrics: Mapping[str, float], settings: Mapping[str, Any]) -> None:
        """Stores the metrics of a step, those that are finite; the first call stores the settings."""
        self._try(self._log, step, metrics, settings)

    def finish(self, tables: Mapping[str, Table], files: Sequence[Path], settings: Mapping[str, Any]) -> None:
        """Stores tables and those files that exist, and closes the tracked run."""
        self._try(self._finish, tables, [file for file in files if file.is_file()], settings)

    def _try(self, act: Callable[..., None], *given: Any) -> None:
        if self._tracker is None:
            return
        try:
            act(*given)
        except (Exception, SystemExit) as error:  # The tracker is not ours: it may raise anything.
            print(
                f"nasjax: tracker={self._tracker.name} failed ({one_line(error)}): nothing more is tracked", file=sys.stderr
            )
            self._tracker = self._run = None

    def _log(self, step: int, metrics: Mapping[str, float], settings: Mapping[str, Any]) -> None:
        self._start(settings)
        if self._run is not None and step > self._step:
            self._step = step
            self._save_mark()  # First: a step that is lost, where the process is killed now, is better than one twice.
            self._run.log(step, {name: float(value) for name, value in metrics.items() if math.isfinite(value)})

    def _finish(self, tables: Mapping[str, Table], files: Sequence[Path], settings: Mapping[str, Any]) -> None:
        self._start(settings)
        if self._run is not None:
            run, self._run = self._run, None  # It is closed once, though Ctrl-C ends a long upload.
            run.finish(tables, files, True)
            self._tracker = None

    def _start(self, settings: Mapping[str, Any]) -> None:
        """Begins the tracked run, or takes up that of the run folder, unless it has begun."""
        if self._run is not None or self._tracker is None:
            return
        mark = self._marks().get(self._tracker.name, {})
        known = mark if mark.get("settings") == self._settings() else {}
        folder = None if self._folder is None else Path(self._folder)
        name = "nasjax" if folder is None else folder.absolute().name
        self._step = known.get("step", 0)
        plain = flatten_settings(plain_data(settings))
        self._run = self._tracker.start(Started(name, folder, plain, known.get("id"), self._step))
        self._save_mark()
        if self._run is None:
            self._tracker = None

    def _settings(self) -> Any:
        return plain_data(asdict(self._tracker)) if self._tracker is not None else None

    def _marks(self) -> dict[str, dict[str, Any]]:
        """The content of MARKS; empty where there is no such file."""
        file = None if self._folder is None else Path(self._folder) / MARKS
        if file is None or not file.exists():
            return {}
        with naming_damage(file, "remove it"):
            return {name: {"settings": m["settings"], "id": str(m["id"]), "step": int(m["step"])}
                    for name, m in parse_json(read_text(file)).items()}  # fmt: skip

    def _save_mark(self) -> None:
        if self._run is not None and self._tracker is not None and self._folder is not None:
            mark = {"settings": self._settings(), "id": self._run.id, "step": self._step}
            write_text(Path(self._folder) / MARKS, json.dumps(self._marks() | {self._tracker.name: mark}, indent=1) + "\n")
