"""`tracker=tensorboard`: events in the run folder, for `tensorboard --logdir runs`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasjax.errors import ConfigError
from nasjax.trackers.base import Started, Table, Tracker

EVENTS = "events"
"""The folder of events in a run folder, those of a training's curves too."""

COLUMNS = ("hypervolume", "loss")
"""The metrics that TensorBoard's table of hyper-parameters shows, of a search and of a training."""


@dataclass(frozen=True)
class TensorBoard(Tracker):
    """TensorBoard: events in the folder `events` of the run folder. Nothing is sent."""

    name = "tensorboard"
    logs_curves = False

    def check(self, folder: Path | None) -> None:
        """Raises ConfigError without a run folder."""
        if folder is None:
            raise ConfigError("tracker=tensorboard writes into the run folder: name one by run=")

    def start(self, run: Started) -> "Events":
        """Opens a new file of events, which TensorBoard shows as one run with those before."""
        assert run.folder is not None
        return Events(run.folder / EVENTS, run.settings, run.step)


class Events:
    """The events of one run: scalars by step; settings and tables as text, figures as images, other files by their path."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], step: int):
        from tensorboardX import SummaryWriter  # Takes a second.
        from tensorboardX.summary import hparams

        self.id, self._step = folder.name, step
        # Files are named by the second: one that is resumed within it would take the other's place.
        self._writer = SummaryWriter(str(folder), filename_suffix=f".{step + 1}")
        plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
        # `add_hparams` would write a run of its own beside the curves.
        for summary in hparams(plain, dict.fromkeys(COLUMNS)):
            self._writer.file_writer.add_summary(summary)
        self._writer.add_text("settings", markdown((("setting", "value"), list(plain.items()))))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes a scalar for each metric."""
        self._step = step
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self, tables: Mapping[str, Table], files: Sequence[Path], complete: bool) -> None:
        """Writes tables, images and the paths of other files, and closes the file of events."""
        for name, table in tables.items():
            self._writer.add_text(name, markdown(table), self._step)
        for file in files:
            if file.suffix == ".png":
                from PIL import Image

                with Image.open(file) as image:
                    pixels = np.asarray(image.convert("RGB"))
                self._writer.add_image(f"{file.stem}_figure", pixels, self._step, dataformats="HWC")
            else:
                self._writer.add_text(file.name, str(file.absolute()), self._step)
        self._writer.close()


def markdown(table: Table) -> str:
    """A table as Markdown."""
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("|", "\\|")
