"""`tracker=trackio`: Trackio's local dashboard (`trackio show`), or a Hugging Face Space."""

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from nasjax.trackers.base import Started, Table, Tracker

REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Environment variables by which Trackio would send a run elsewhere, though `space` is not set."""


@dataclass(frozen=True)
class Trackio(Tracker):
    """Trackio, in its own folder on this machine (`TRACKIO_DIR`); `trackio show --project nasjax` shows it.

    Attributes:
      project: the project that runs belong to.
      space: a Hugging Face Space, as in `user/name`, that everything is sent to; null: nothing is sent.
    """

    project: str = "nasjax"
    space: str | None = None

    name = "trackio"
    package = "trackio"

    def start(self, run: Started) -> "TrackioRun":
        """Begins a run, or takes up one of the same name."""
        import trackio

        # Trackio finds runs by their names, and folders of two sweeps may have the same.
        name = run.id or f"{run.name}-{uuid.uuid4().hex[:6]}"
        with _quiet(), _hidden(REMOTE):
            trackio.init(
                project=self.project, name=name, space_id=self.space, config=dict(run.settings), resume="allow",
                embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        return TrackioRun(name, run.step)


class TrackioRun:
    """Trackio's current run: metrics by step; tables and images at the last step, other files as artefacts."""

    def __init__(self, name: str, step: int):
        self.id, self._step = name, step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of a step."""
        import trackio

        self._step = step
        trackio.log(dict(metrics), step=step)

    def finish(self, tables: Mapping[str, Table], files: Sequence[Path], complete: bool) -> None:
        """Stores tables, images and artefacts, and waits until all is stored."""
        import trackio

        with _quiet():
            shown = {
                name: trackio.Table(columns=list(header), data=[list(row) for row in rows])
                for name, (header, rows) in tables.items()
            }
            shown |= {file.stem + "_figure": trackio.Image(file) for file in files if file.suffix == ".png"}
            if shown:
                trackio.log(shown, step=self._step)
            for file in files:
                if file.suffix != ".png":
                    trackio.log_artifact(file, name=f"{self.id}-{file.name}", type="report")
            trackio.finish()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Trackio's lines on the standard output, which has the front."""
    with redirect_stdout(StringIO()):
        yield


@contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Without these environment variables."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
