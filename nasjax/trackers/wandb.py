"""`tracker=wandb`: Weights & Biases, offline unless `tracker.mode=online`."""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasjax.errors import ConfigError, one_line
from nasjax.trackers.base import Started, Table, Tracker

MODES = ("offline", "online")


@dataclass(frozen=True)
class Wandb(Tracker):
    """Weights & Biases. Offline runs lie in the run folder; `wandb sync FOLDER/wandb/offline-run-*` sends them.

    Attributes:
      project: the project that runs belong to.
      entity: the user or team that it belongs to; null: your own.
      mode: `offline` sends nothing; `online` sends all that is tracked, and needs `wandb login`.
    """

    project: str = "nasjax"
    entity: str | None = None
    mode: str = "offline"

    name = "wandb"
    package = "wandb"

    def check(self, folder: Path | None) -> None:
        """Raises ConfigError without the package, for another mode, and where `online` has no login."""
        super().check(folder)
        if self.mode not in MODES:
            raise ConfigError(f"tracker.mode must be one of {', '.join(MODES)}, not {self.mode!r}")
        if self.mode == "online":
            try:
                logged_in = _imported().login(prompt=False, verify=False)
            except Exception as error:
                raise ConfigError(f"tracker=wandb cannot log in ({one_line(error)}): run wandb login") from None
            if not logged_in:
                raise ConfigError("tracker.mode=online needs a login: run wandb login")

    def start(self, run: Started) -> "WandbRun":
        """Begins a run, or takes up that with the same id."""
        wandb = _imported()
        id = run.id or uuid.uuid4().hex[:8]
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True, x_disable_stats=True,
            x_disable_machine_info=True, x_save_requirements=False,
        )  # fmt: skip
        begun = wandb.init(
            project=self.project, entity=self.entity, mode=self.mode, dir=run.folder, id=id, name=run.name,
            config=dict(run.settings), resume="allow", reinit="create_new",
            settings=quiet,
        )  # fmt: skip
        return WandbRun(id, begun)


class WandbRun:
    """A run of Weights & Biases: metrics by step; tables, images, and an artefact of the other files."""

    def __init__(self, id: str, run: Any):
        self.id, self._run = id, run

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Stores the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def finish(self, tables: Mapping[str, Table], files: Sequence[Path], complete: bool) -> None:
        """Stores tables, images and the artefact; online it waits until all is sent."""
        import wandb

        shown: dict[str, Any] = {
            name: wandb.Table(columns=list(header), data=[list(row) for row in rows], allow_mixed_types=True)
            for name, (header, rows) in tables.items()
        }
        shown |= {file.stem + "_figure": wandb.Image(str(file)) for file in files if file.suffix == ".png"}
        if shown:
            self._run.log(shown)
        others = [file for file in files if file.suffix != ".png"]
        if others:
            artifact = wandb.Artifact(f"report-{self.id}", type="report")
            for file in others:
                artifact.add_file(str(file))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if complete else 1)


def _imported() -> Any:
    """The package, which is not to report its own errors to its makers."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb
